"""A run's figures, and the invariants that must hold at its end. Owns the sums over state and books; pure."""

import statistics
from collections import Counter

from msgspec import Struct

from kinoswarm_coordinator.credit import flops_per_step
from kinoswarm_coordinator.state import SwarmState
from kinoswarm_coordinator.trust import is_proven
from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_simulator.plan import OPERATOR
from kinoswarm_simulator.world import World

_GOOD = ("received", "available", "accepted", "merged", "credited")


class Detection(Struct, frozen=True, kw_only=True):
    """What became of one behaviour's volunteers and work."""

    behaviour: str
    volunteers: int
    banned: int
    contributions: int
    refused: int
    """Rejected or set aside."""
    merged: int
    """In a version that stands."""


class Report(Struct, frozen=True, kw_only=True):
    """Everything that `kinoswarm simulate` shows."""

    nodes: int
    joined: int
    days: float
    seed: int
    clusters: int
    utilisation: float
    """Share of honest volunteers' on-time in segments that came to something or are under way."""
    lost: dict[str, float]
    """Shares of the same time, by what became of the work."""
    idle: float
    reissue_s_median: float
    reissue_s_p99: float
    versions_least: int
    versions_median: float
    versions_most: int
    verification_share: float
    """Of the training's FLOPs: audits, held-out tests, merge tests."""
    verification_by_day: list[float]
    """Of each whole day."""
    charged: dict[str, float]
    """FLOPs by the kind of lease, against those of training."""
    coordinator_bytes_per_s: float
    leases: dict[str, int]
    contributions: dict[str, int]
    proven_accounts: int
    honest_banned: int
    detections: list[Detection]
    events: int


def report_of(world: World) -> Report:
    """The figures of a finished run."""
    plan, state, books = world.plan, world.state, world.books
    honest = {peer for peer, one in world.volunteers.items() if one.behaviour.name == "honest"}
    spent = _spent(world, honest)
    total = max(1.0, books.available_ms)
    lines = sorted(line[-1].position for line in state.versions.values())
    reissued = sorted(books.reissued_ms) or [0]
    return Report(
        nodes=plan.nodes,
        joined=len(world.volunteers),
        days=plan.days,
        seed=plan.seed,
        clusters=plan.num_clusters,
        utilisation=spent.get("good", 0.0) / total,
        lost={name: ms / total for name, ms in sorted(spent.items()) if name != "good"},
        idle=1.0 - sum(spent.values()) / total,
        reissue_s_median=statistics.median(reissued) / 1000,
        reissue_s_p99=reissued[int(0.99 * (len(reissued) - 1))] / 1000,
        versions_least=lines[0],
        versions_median=statistics.median(lines),
        versions_most=lines[-1],
        verification_share=books.verification_share,
        verification_by_day=books.verification_by_day,
        charged=books.charged,
        coordinator_bytes_per_s=(books.bytes_in + books.bytes_out) / (plan.ends_at_ms / 1000),
        leases=dict(sorted(books.leases.items())),
        contributions=dict(sorted(state.work.by_phase.items())),
        proven_accounts=sum(is_proven(state, world.rules, account) for account in state.trust),
        honest_banned=len(honest & set(state.bans)),
        detections=_detections(world),
        events=world.num_events,
    )


def _spent(world: World, honest: set[PeerId]) -> dict[str, float]:
    """On-time of honest volunteers by what became of it."""
    spent: Counter[str] = Counter()
    for lease_id, worked_ms in world.books.worked_ms.items():
        if world.state.leases[lease_id].lease.node in honest:
            spent[_fate(world.state, lease_id)] += worked_ms  # type: ignore[assignment]
    return dict(spent)


def _fate(state: SwarmState, lease_id: LeaseId) -> str:
    work, lease = state.work.get(lease_id), state.leases[lease_id]
    if work is not None:
        return "good" if work.phase in _GOOD else work.phase
    return "good" if lease.phase == "open" else lease.phase


def _detections(world: World) -> list[Detection]:
    by_name: dict[str, list[PeerId]] = {}
    for peer, one in world.volunteers.items():
        by_name.setdefault(one.behaviour.name, []).append(peer)
    return [_detection(world, name, peers) for name, peers in sorted(by_name.items())]


def _detection(world: World, name: str, peers: list[PeerId]) -> Detection:
    state, truth = world.state, world.truth.by_delta
    handed_in = [
        lease_id
        for peer in peers
        for lease_id in state.work.by_node.get(peer, [])
        if truth[state.delta_of(lease_id)].honest == (name == "honest")
    ]
    phases = Counter(state.work[lease_id].phase for lease_id in handed_in)
    standing = {
        lease_id
        for key, line in state.versions.items()
        for version in line
        if version.version not in state.withdrawn.get(key, set())
        for lease_id in version.contributions
    }
    return Detection(
        behaviour=name,
        volunteers=len(peers),
        banned=sum(peer in state.bans for peer in peers),
        contributions=len(handed_in),
        refused=phases["rejected"] + phases["quarantined"],
        merged=len(standing & set(handed_in)),
    )


def check_invariants(world: World) -> None:
    """Raises AssertionError, naming the seed, when something was granted or counted twice."""
    state, seed = world.state, world.plan.seed
    for key, line in state.versions.items():
        withdrawn = state.withdrawn.get(key, set())
        merged = Counter(
            lease_id
            for version in line
            if version.version not in withdrawn
            for lease_id in version.contributions
        )
        assert not [one for one, count in merged.items() if count > 1], f"merged twice, seed {seed}"
    counted = Counter(
        peer
        for peer, held in state.open_by_node.items()
        for lease_id in held
        if state.leases[lease_id].lease.deadline_ms > world.now_ms and peer != OPERATOR
    )
    assert all(count == 1 for count in counted.values()), f"two leases at once, seed {seed}"
    for lease_id, work in state.work.items():
        assert work.phase != "rejected" or work.verdict, f"no reason for {lease_id}, seed {seed}"
    assert flops_per_step(world.rules.charter) > 0
