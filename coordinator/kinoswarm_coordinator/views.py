"""What may be shown of a swarm: frozen views made from state. Owns what is public; no view ever holds an address."""

import re

from msgspec import Struct

from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.state import LineageKey, NodeState, Rules, SwarmState, WorkState
from kinoswarm_coordinator.status import phase_sentence, training_by_cluster
from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.messages import AccuracyAt, ReleaseFile, TrainOrder, TrainOutcome

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


class ClusterView(Struct, frozen=True, kw_only=True):
    cluster: int
    label: str
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
    created_at_ms: int
    published: bool
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
    """The public view of this moment."""
    volunteers = [node for node in state.nodes.values() if node.peer != rules.operator]
    volunteers.sort(key=lambda node: (-presence.last_seen_ms.get(node.peer, 0), node.peer))
    charter = rules.charter
    counted = [
        work.outcome
        for work in state.work.values()
        if isinstance(work.outcome, TrainOutcome) and work.phase in ("accepted", "merged")
    ]
    router = state.router
    leases = _train_leases(state)
    nodes = [_node(state, presence, node, leases, now_ms) for node in volunteers]
    trainers = _trainers(nodes)
    return SwarmView(
        swarm=swarm,
        name=charter.name,
        note=charter.content_note,
        now_ms=now_ms,
        founded_at_ms=charter.created_at_ms,
        preset=charter.model.preset,
        phase=phase_sentence(state, rules),
        operator_doing=doing,
        online=sum(presence.is_online(node.peer, now_ms) for node in volunteers),
        num_nodes=len(volunteers),
        nodes=nodes[:_MOST_NODES],
        clusters=[
            _cluster(state, rules, i, trainers.get(i, [])) for i in range(len(charter.clusters))
        ],
        verdicts=_verdicts(state),
        contributions_by_state=_contributions(state),
        samples_trained=sum(outcome.samples for outcome in counted),
        flops_trained=sum(outcome.flops for outcome in counted),
        bytes_up=presence.bytes_up,
        bytes_down=presence.bytes_down,
        router=RouterView(
            accuracy_by_t=router.accuracy_by_t, calibration_error=router.calibration_error
        )
        if router
        else None,
        releases=[_release(state, rules, index) for index in range(len(state.releases))],
    )


def _train_leases(state: SwarmState) -> dict[PeerId, tuple[LeaseId, int]]:
    """Who holds which open train lease, and for which cluster; the latest lease of each node."""
    held: dict[PeerId, tuple[LeaseId, int]] = {}
    for lease_id in sorted(
        state.open_leases, key=lambda i: (state.leases[i].lease.issued_at_ms, i)
    ):
        lease = state.leases[lease_id].lease
        if isinstance(lease.order, TrainOrder):
            held[lease.node] = (lease_id, lease.order.cluster)
    return held


def _trainers(nodes: list[NodeView]) -> dict[int, list[str]]:
    """Pseudonyms by the cluster that they train now."""
    found: dict[int, list[str]] = {}
    for node in nodes:
        if node.cluster is not None:
            found.setdefault(node.cluster, []).append(node.pseudonym)
    return {cluster: sorted(names)[:_MOST_TRAINERS] for cluster, names in found.items()}


def _node(
    state: SwarmState,
    presence: Presence,
    node: NodeState,
    leases: dict[PeerId, tuple[LeaseId, int]],
    now_ms: int,
) -> NodeView:
    online = presence.is_online(node.peer, now_ms)
    lease_id, cluster = leases.get(node.peer, (None, None)) if online else (None, None)
    step = presence.step_by_lease.get(lease_id) if lease_id else None
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


def _cluster(state: SwarmState, rules: Rules, index: int, trainers: list[str]) -> ClusterView:
    key: LineageKey = (index, 0)
    entry = rules.charter.clusters[index]
    shares = state.router.share_by_cluster if state.router else []
    line = state.versions[key]
    waiting = sum(
        1
        for lease_id in state.undecided
        if getattr(state.leases[lease_id].order, "cluster", None) == index
    )
    return ClusterView(
        cluster=index,
        label=entry.label,
        num_clips=entry.num_clips,
        version=line[-1].version,
        versions=[
            VersionView(
                version=version.version,
                heldout_loss=version.heldout_loss,
                created_at_ms=version.created_at_ms,
                contributions=len(version.contributions),
            )
            for version in line
        ],
        training=training_by_cluster(state).get(index, 0),
        trainers=trainers,
        pending=waiting + len(state.unmerged[key]),
        share=shares[index] if index < len(shares) else None,
    )


def _verdicts(state: SwarmState) -> list[VerdictView]:
    decided = [work for work in state.work.values() if work.verdict is not None]
    decided.sort(key=lambda work: (-work.decided_at_ms, work.lease_id))
    return [_verdict(state, work) for work in decided[:_RECENT_VERDICTS]]


def _verdict(state: SwarmState, work: WorkState) -> VerdictView:
    verdict, node = work.verdict, state.nodes.get(work.node)
    assert verdict is not None
    return VerdictView(
        lease_id=work.lease_id,
        pseudonym=node.pseudonym if node else "unknown",
        cluster=getattr(state.leases[work.lease_id].order, "cluster", 0),
        state=work.phase,
        code=verdict.code,
        sentence=verdict.sentence,
        decided_at_ms=work.decided_at_ms,
    )


def _contributions(state: SwarmState) -> dict[str, int]:
    """Train contributions by what became of them."""
    counts: dict[str, int] = {}
    for work in state.work.values():
        if isinstance(work.outcome, TrainOutcome):
            counts[work.phase] = counts.get(work.phase, 0) + 1
    return dict(sorted(counts.items()))


def _release(state: SwarmState, rules: Rules, index: int) -> ReleaseView:
    release = state.releases[index]
    names = sorted(file.path for file in release.files if _SAMPLE.match(file.path))
    return ReleaseView(
        version=release.version,
        expert_versions=release.expert_versions,
        created_at_ms=release.created_at_ms,
        published=release.manifest is not None,
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
