"""What trusted workers do next: judge, cut versions, train the router, build releases. Owns the when; pure."""

from kinoswarm_coordinator.fold import lineage_of
from kinoswarm_coordinator.state import LineageKey, Purpose, Rules, SwarmState
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.messages import (
    EvaluateOrder,
    ExpertRef,
    MergeOrder,
    Order,
    ReleaseOrder,
    RouteOrder,
    TrainOrder,
    TrainOutcome,
    WeightedDelta,
)

_MOST_DELTAS_PER_EVALUATION = 8
TrustedWork = tuple[Purpose, Order, str]


def next_trusted_work(
    state: SwarmState, rules: Rules, now_ms: int, seed: int
) -> TrustedWork | None:
    """The most urgent trusted work with a reason, or None. Volunteers wait for verdicts, so those come first."""
    return (
        _evaluation(state, rules, seed)
        or _merge(state, rules, now_ms, seed)
        or _release(state, rules, seed)
        or _routing(state, rules, seed)
    )


def _evaluation(state: SwarmState, rules: Rules, seed: int) -> TrustedWork | None:
    """Contributions of one cluster and base that are here and that nobody is judging."""
    waiting = sorted(
        (state.work[lease_id].received_at_ms, lease_id)
        for lease_id in state.undecided - state.in_judgement
        if state.work[lease_id].phase == "available"
    )
    if not waiting:
        return None
    first = _train_order(state, waiting[0][1])
    alike = [
        lease_id
        for _, lease_id in waiting
        if _train_order(state, lease_id).base == first.base
        and lineage_of(state, lease_id) == (first.cluster, first.lineage)
    ][:_MOST_DELTAS_PER_EVALUATION]
    order = EvaluateOrder(
        cluster=first.cluster,
        base_version=first.base_version,
        base=first.base,
        deltas=[_trained(state, lease_id).delta for lease_id in alike],
        pairs=rules.charter.policy.heldout_pairs,
        seed=seed,
    )
    return "evaluate", order, f"{len(alike)} contributions to expert {first.cluster} wait"


def _merge(state: SwarmState, rules: Rules, now_ms: int, seed: int) -> TrustedWork | None:
    """The lineage whose accepted work fills the quorum, or has waited for the grace time."""
    busy = {
        (order.cluster, order.lineage)
        for lease_id in state.open_leases | state.unsettled
        if isinstance(order := state.leases[lease_id].order, MergeOrder)
    }
    due = [
        key
        for key in sorted(state.unmerged)
        if key not in busy and merge_is_due(state, rules, key, now_ms)
    ]
    if not due:
        return None
    key = min(due, key=lambda key: (state.newest(key).version, key))
    order = merge_order(state, rules, key, seed)
    return "merge", order, f"version {order.base_version + 1} of expert {key[0]} is due"


def merge_is_due(state: SwarmState, rules: Rules, key: LineageKey, now_ms: int) -> bool:
    """Quorum of samples, or the grace time since the first accepted contribution."""
    policy = rules.charter.policy
    accepted = [state.work[lease_id] for lease_id in state.unmerged[key]]
    if not accepted:
        return False
    samples = sum(_trained(state, work.lease_id).samples for work in accepted)
    waited_ms = now_ms - min(work.decided_at_ms for work in accepted)
    return samples >= policy.quorum_samples or waited_ms >= policy.grace_s * 1000


def merge_order(state: SwarmState, rules: Rules, key: LineageKey, seed: int) -> MergeOrder:
    """The order that cuts the next version: deltas sorted by contribution, stale ones weighing less.

    A single contributor's delta is taken as it is: rate 1, no momentum.
    """
    policy = rules.charter.policy
    base = state.newest(key)
    deltas = [
        WeightedDelta(
            contribution=lease_id,
            delta=_trained(state, lease_id).delta,
            weight=_trained(state, lease_id).samples
            * policy.staleness_decay ** (base.version - _train_order(state, lease_id).base_version),
        )
        for lease_id in sorted(state.unmerged[key])
    ]
    alone = len(deltas) == 1
    return MergeOrder(
        cluster=key[0],
        lineage=key[1],
        base_version=base.version,
        base=base.checkpoint,
        deltas=deltas,
        outer_rate=1.0 if alone else policy.outer_rate,
        outer_momentum=0.0 if alone else policy.outer_momentum,
        norm_clip=policy.norm_clip,
        momentum=None if alone else base.momentum,
        pairs=policy.heldout_pairs,
        seed=seed,
    )


def _routing(state: SwarmState, rules: Rules, seed: int) -> TrustedWork | None:
    """The router depends on the data only, so it is trained once, while the experts train."""
    if state.router is not None or _is_open(state, "route"):
        return None
    order = RouteOrder(steps=rules.charter.model.router.steps, seed=seed)
    return "route", order, "the router is not trained yet"


def _release(state: SwarmState, rules: Rules, seed: int) -> TrustedWork | None:
    """A release is due when every expert is newer than in the last one, or all have reached their target."""
    if state.router is None or _is_open(state, "release"):
        return None
    newest = [state.newest((cluster, 0)) for cluster in range(len(rules.charter.clusters))]
    if not _deserves_release(state, rules, [expert.version for expert in newest]):
        return None
    order = ReleaseOrder(
        version=len(state.releases) + 1,
        experts=[
            ExpertRef(
                cluster=cluster, lineage=0, version=expert.version, checkpoint=expert.checkpoint
            )
            for cluster, expert in enumerate(newest)
        ],
        router=state.router.blob,
        prompts=list(rules.prompts),
        seed=seed,
    )
    return "release", order, f"the experts are newer than in release {order.version - 1}"


def _deserves_release(state: SwarmState, rules: Rules, versions: list[int]) -> bool:
    before = state.releases[-1].expert_versions if state.releases else [0] * len(versions)
    target = rules.charter.policy.target_version
    if state.release_wanted or (target and min(versions) >= target):
        return versions != before
    return all(new > old for new, old in zip(versions, before, strict=True))


def _is_open(state: SwarmState, purpose: Purpose) -> bool:
    """Whether such work is under way: leased, or done with blobs still to come."""
    under_way = state.open_leases | state.unsettled
    return any(state.leases[lease_id].purpose == purpose for lease_id in under_way)


def _train_order(state: SwarmState, lease_id: LeaseId) -> TrainOrder:
    order = state.leases[lease_id].order
    assert isinstance(order, TrainOrder)
    return order


def _trained(state: SwarmState, lease_id: LeaseId) -> TrainOutcome:
    outcome = state.work[lease_id].outcome
    assert isinstance(outcome, TrainOutcome)
    return outcome
