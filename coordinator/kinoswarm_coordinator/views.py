"""What may be shown of a swarm: frozen views made from state. Owns what is public; no view ever holds an address."""

import heapq
import re
from dataclasses import dataclass

from msgspec import Struct

from kinoswarm_coordinator.credit import flops_per_sample
from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.state import LineageKey, NodeState, Rules, SwarmState
from kinoswarm_coordinator.status import phase_sentence, training_by_cluster
from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.messages import AccuracyAt, ReleaseFile, TrainOrder, Verdict
from kinoswarm_protocol.specs import Objective

_RECENT_VERDICTS = 20
_MOST_NODES = 500
_MOST_TRAINERS = 8
_SAMPLE = re.compile(r"^samples/[A-Za-z0-9_.-]+\.mp4$")


class NodeView(Struct, frozen=True, kw_only=True):
    peer: str
    pseudonym: str
    device: str
    program_version: str
    state: str
    cluster: int | None
    step: int | None
    accepted: int
    rejected: int
    failed: int
    last_seen_ms: int
    joined_at_ms: int


class VersionView(Struct, frozen=True, kw_only=True):
    version: int
    heldout_loss: float | None
    created_at_ms: int
    contributions: int
    kept: bool = True
    """Whether its checkpoint is still here; a forgotten version can't be rolled back to."""


class ClusterView(Struct, frozen=True, kw_only=True):
    cluster: int
    label: str
    objective: Objective
    """What held-out losses are of: the velocity or the noise. Only those of one objective compare."""
    num_clips: int
    version: int
    versions: list[VersionView]
    training: int
    trainers: list[str]
    """Pseudonyms of who is at it now; fewer than `training` when a trainer went away."""
    pending: int
    """Contributions that wait for a verdict or a merge."""
    share: float | None


class VerdictView(Struct, frozen=True, kw_only=True):
    lease_id: str
    peer: str
    pseudonym: str
    cluster: int
    state: str
    code: str
    sentence: str
    decided_at_ms: int


class SampleView(Struct, frozen=True, kw_only=True):
    path: str
    prompt: str


class ReleaseView(Struct, frozen=True, kw_only=True):
    version: int
    expert_versions: list[int]
    considered: list[int]
    """The newest version of every expert when it was made."""
    held_back: list[str]
    """Why one is not in it."""
    created_at_ms: int
    published: bool
    kept: bool = True
    """Whether its files and their signed table are still here."""
    size_bytes: int
    num_files: int
    share_by_expert: list[float]
    samples: list[SampleView]
    """In the order of the prompts."""


class RouterView(Struct, frozen=True, kw_only=True):
    accuracy_by_t: list[AccuracyAt]
    calibration_error: float


class SwarmView(Struct, frozen=True, kw_only=True):
    """Everything that the page and `/api/v1/status` show."""

    swarm: str
    name: str
    note: str
    now_ms: int
    founded_at_ms: int
    preset: str
    phase: str
    operator_doing: str
    online: int
    num_nodes: int
    nodes: list[NodeView]
    clusters: list[ClusterView]
    verdicts: list[VerdictView]
    contributions_by_state: dict[str, int]
    samples_trained: int
    flops_trained: float
    bytes_up: int
    """Sent by the coordinator since it started."""
    bytes_down: int
    router: RouterView | None
    releases: list[ReleaseView]


def view_of(
    state: SwarmState, rules: Rules, presence: Presence, now_ms: int, doing: str, swarm: str
) -> SwarmView:
    """The public view of this moment. Costs what is shown and under way, not what ever happened."""
    charter, router, total = rules.charter, state.router, state.work.total
    leases = _train_leases(state)
    shown = _seen_last(state, rules, presence)
    trainers = _trainers(state, presence, leases, now_ms)
    under_way, pending = training_by_cluster(state), _undecided_by_cluster(state)
    num_operator = int(rules.operator in state.nodes)
    return SwarmView(
        swarm=swarm,
        name=charter.name,
        note=charter.content_note,
        now_ms=now_ms,
        founded_at_ms=charter.created_at_ms,
        preset=charter.model.preset,
        phase=phase_sentence(state, rules),
        operator_doing=doing,
        online=num_online(rules, presence, now_ms),
        num_nodes=len(state.nodes) - num_operator,
        nodes=[_node(node, presence, leases, now_ms) for node in shown],
        clusters=[
            _cluster(
                state,
                rules,
                index,
                _AtWork(under_way.get(index, 0), trainers.get(index, []), pending.get(index, 0)),
            )
            for index in range(len(charter.clusters))
        ],
        verdicts=[
            verdict_view(state, verdict)
            for verdict in reversed(state.work.decisions[-_RECENT_VERDICTS:])
        ],
        contributions_by_state={
            phase: count for phase, count in sorted(state.work.by_phase.items()) if count
        },
        samples_trained=total.samples,
        flops_trained=total.samples * flops_per_sample(charter),
        bytes_up=presence.bytes_up,
        bytes_down=presence.bytes_down,
        router=RouterView(
            accuracy_by_t=router.accuracy_by_t, calibration_error=router.calibration_error
        )
        if router
        else None,
        releases=[_release(state, rules, index) for index in range(len(state.releases))],
    )


def node_views(
    state: SwarmState, presence: Presence, peers: list[PeerId], now_ms: int
) -> list[NodeView]:
    """Those of `peers` that ever joined, as they are now."""
    leases = _train_leases(state)
    known = (state.nodes[peer] for peer in peers if peer in state.nodes)
    return [_node(node, presence, leases, now_ms) for node in known]


def _seen_last(state: SwarmState, rules: Rules, presence: Presence) -> list[NodeState]:
    """The volunteers to list, most recently seen first."""
    seen = presence.last_seen_ms
    volunteers = (node for node in state.nodes.values() if node.peer != rules.operator)
    return heapq.nsmallest(
        _MOST_NODES, volunteers, key=lambda node: (-seen.get(node.peer, 0), node.peer)
    )


def num_online(rules: Rules, presence: Presence, now_ms: int) -> int:
    """How many volunteers said something lately."""
    return sum(
        peer != rules.operator and presence.is_online(peer, now_ms)
        for peer in presence.last_seen_ms
    )


def _train_leases(state: SwarmState) -> dict[PeerId, tuple[LeaseId, int]]:
    """Who holds which open train lease, and for which cluster; the latest lease of each node."""
    held: dict[PeerId, tuple[LeaseId, int]] = {}
    issued: dict[PeerId, tuple[int, LeaseId]] = {}
    for lease_id in state.open_leases:
        lease = state.leases[lease_id].lease
        age = (lease.issued_at_ms, lease_id)
        if isinstance(lease.order, TrainOrder) and age >= issued.get(lease.node, age):
            issued[lease.node] = age
            held[lease.node] = (lease_id, lease.order.cluster)
    return held


def _undecided_by_cluster(state: SwarmState) -> dict[int, int]:
    counts: dict[int, int] = {}
    for lease_id in state.undecided:
        cluster = getattr(state.leases[lease_id].order, "cluster", None)
        if cluster is not None:
            counts[cluster] = counts.get(cluster, 0) + 1
    return counts


def _trainers(
    state: SwarmState,
    presence: Presence,
    leases: dict[PeerId, tuple[LeaseId, int]],
    now_ms: int,
) -> dict[int, list[str]]:
    """Pseudonyms by the cluster that they train now."""
    found: dict[int, list[str]] = {}
    for peer, (_, cluster) in leases.items():
        if peer in state.nodes and presence.is_online(peer, now_ms):
            found.setdefault(cluster, []).append(state.nodes[peer].pseudonym)
    return {cluster: sorted(names)[:_MOST_TRAINERS] for cluster, names in found.items()}


def _node(
    node: NodeState,
    presence: Presence,
    leases: dict[PeerId, tuple[LeaseId, int]],
    now_ms: int,
) -> NodeView:
    online = presence.is_online(node.peer, now_ms)
    lease_id, cluster = leases.get(node.peer, (None, None)) if online else (None, None)
    step = presence.step_of(node.peer, lease_id) if lease_id else None
    return NodeView(
        peer=node.peer,
        pseudonym=node.pseudonym,
        device=node.device,
        program_version=node.program_version,
        state=("training" if cluster is not None else "idle") if online else "away",
        cluster=cluster,
        step=step,
        accepted=node.accepted,
        rejected=node.rejected,
        failed=node.failed,
        last_seen_ms=presence.last_seen_ms.get(node.peer, 0),
        joined_at_ms=node.joined_at_ms,
    )


@dataclass(frozen=True)
class _AtWork:
    """What goes on at one cluster."""

    training: int
    trainers: list[str]
    undecided: int


def _cluster(state: SwarmState, rules: Rules, index: int, at_work: _AtWork) -> ClusterView:
    key: LineageKey = (index, 0)
    entry = rules.charter.clusters[index]
    shares = state.router.share_by_cluster if state.router else []
    line = state.versions[key]
    return ClusterView(
        cluster=index,
        label=entry.label,
        objective=entry.objective,
        num_clips=entry.num_clips,
        version=line[-1].version,
        versions=[
            VersionView(
                version=version.version,
                heldout_loss=version.heldout_loss,
                created_at_ms=version.created_at_ms,
                contributions=len(version.contributions),
                kept=not state.is_forgotten(key, version.version),
            )
            for version in line
        ],
        training=at_work.training,
        trainers=at_work.trainers,
        pending=at_work.undecided + len(state.unmerged[key]),
        share=shares[index] if index < len(shares) else None,
    )


def verdict_view(state: SwarmState, verdict: Verdict) -> VerdictView:
    """A verdict as it was given; `state` of the view is where the contribution stands now."""
    lease_id = LeaseId(verdict.lease_id)
    node, work = state.nodes.get(PeerId(verdict.node)), state.work.get(lease_id)
    return VerdictView(
        lease_id=lease_id,
        peer=verdict.node,
        pseudonym=node.pseudonym if node else "unknown",
        cluster=getattr(state.leases[lease_id].order, "cluster", 0),
        state=work.phase if work is not None and work.verdict == verdict else verdict.state,
        code=verdict.code,
        sentence=verdict.sentence,
        decided_at_ms=verdict.decided_at_ms,
    )


def _release(state: SwarmState, rules: Rules, index: int) -> ReleaseView:
    release = state.releases[index]
    names = sorted(file.path for file in release.files if _SAMPLE.match(file.path))
    return ReleaseView(
        version=release.version,
        expert_versions=release.expert_versions,
        considered=release.considered,
        held_back=release.held_back,
        created_at_ms=release.created_at_ms,
        published=release.manifest is not None,
        kept=release.version not in state.forgotten_releases,
        size_bytes=_size(release.files),
        num_files=len(release.files),
        share_by_expert=release.share_by_expert,
        samples=[
            SampleView(path=f"/releases/{release.version}/{name}", prompt=prompt)
            for name, prompt in zip(names, rules.prompts, strict=False)
        ],
    )


def _size(files: list[ReleaseFile]) -> int:
    return sum(file.size_bytes for file in files)
