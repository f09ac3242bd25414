"""What trusted workers do next: judge, cut versions, train the router, build releases. Owns the when; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from kinoswarm_coordinator.audits import comparison_order
from kinoswarm_coordinator.chance import derived_seed
from kinoswarm_coordinator.referee import next_dispute
from kinoswarm_coordinator.releasing import release_order
from kinoswarm_coordinator.state import LineageKey, Purpose, Rules, SwarmState
from kinoswarm_coordinator.trust import is_proven
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.limits import MAX_DELTAS_PER_MERGE
from kinoswarm_protocol.messages import (
    AssignedSamples,
    EvaluateOrder,
    MergeOrder,
    Order,
    RouteOrder,
    TrainOrder,
    TrainOutcome,
    WeightedDelta,
)

_MOST_DELTAS_PER_EVALUATION = 8
_PROBED_SHARE = 0.1875
"""Of the held-out pairs, for each of the looks of doubts.py (48 of 256): they only open audits, and cost six passes
a sample."""


@dataclass(frozen=True)
class TrustedWork:
    """One piece of it, with the reason why it is due."""

    purpose: Purpose
    order: Order
    reason: str
    audit_of: LeaseId | None = None
    """Of a comparison, or a run that ends a dispute: the contribution that was done again."""


def next_trusted_work(
    state: SwarmState, rules: Rules, now_ms: int, seed: int
) -> TrustedWork | None:
    """The most urgent trusted work with a reason, or None. Volunteers wait for verdicts, so those come first.

    Comparing runs takes no forward pass and frees work that waits for its audit, so it goes before all else. A run that
    ends a dispute takes longest, and liars gain trust while it waits: it goes first every other time on average, so
    that whoever starts disputes can't keep everybody's verdicts waiting either.
    """
    return (
        _comparison(state)
        or (_referee(state, rules, now_ms) if derived_seed(seed, "referee") % 2 else None)
        or _evaluation(state, rules, seed)
        or _merge(state, rules, now_ms, seed)
        or _release(state, rules, seed)
        or _routing(state, rules, seed)
        or _referee(state, rules, now_ms)
    )


def _evaluation(state: SwarmState, rules: Rules, seed: int) -> TrustedWork | None:
    """Contributions of one cluster and base that are here and that nobody is judging."""
    waiting = next(iter(state.judgeable.values()), None)
    if waiting is None:
        return None
    alike = list(islice(waiting, _MOST_DELTAS_PER_EVALUATION))
    first, policy = _train_order(state, alike[0]), rules.charter.policy
    asked = [_assigned(state, rules, lease_id) for lease_id in alike]
    looks = any(entry is not None for entry in asked)
    order = EvaluateOrder(
        cluster=first.cluster,
        base_version=first.base_version,
        base=first.base,
        deltas=[_trained(state, lease_id).delta for lease_id in alike],
        pairs=policy.heldout_pairs,
        seed=seed,
        assigned=asked if looks else [],
        foreign=_foreign(rules, first.cluster, seed) if looks else None,
        probes=max(1, round(_PROBED_SHARE * policy.heldout_pairs)) if looks else 0,
    )
    reason = f"{len(alike)} contributions to expert {first.cluster} wait"
    return TrustedWork("evaluate", order, reason)


def _assigned(state: SwarmState, rules: Rules, lease_id: LeaseId) -> AssignedSamples | None:
    """What to ask a contribution about: nothing where an audit looks anyway, or where there are none (doubts.py)."""
    if state.is_audited(lease_id) or not rules.charter.policy.audit_one_in:
        return None
    order = _train_order(state, lease_id)
    return AssignedSamples(seed=order.seed, steps=order.steps, batch_size=order.batch_size)


def _foreign(rules: Rules, cluster: int, seed: int) -> int | None:
    """Another cluster, by chance."""
    others = len(rules.charter.clusters) - 1
    if not others:
        return None
    return (cluster + 1 + derived_seed(seed, "foreign") % others) % (others + 1)


def _comparison(state: SwarmState) -> TrustedWork | None:
    """Runs of one work order that nobody compared yet."""
    found = comparison_order(state)
    if found is None:
        return None
    primary, order = found
    reason = f"{len(order.deltas)} runs of one work order wait to be compared"
    return TrustedWork("compare", order, reason, audit_of=primary)


def _referee(state: SwarmState, rules: Rules, now_ms: int) -> TrustedWork | None:
    """Work that runs differ about, done once more; who is found out by it may end other disputes too."""
    found = next_dispute(state, rules, now_ms)
    if found is None:
        return None
    primary, order = found
    return TrustedWork("referee", order, f"runs of {primary} differ", audit_of=primary)


def _merge(state: SwarmState, rules: Rules, now_ms: int, seed: int) -> TrustedWork | None:
    """The lineage whose accepted work fills the quorum, or has waited for the grace time."""
    busy = {
        (order.cluster, order.lineage)
        for lease_id in trusted_under_way(state, rules)
        if isinstance(order := state.leases[lease_id].order, MergeOrder)
    }
    due = [
        (state.newest(key).version, key)
        for key in state.mergeable
        if key not in busy and merge_is_due(state, rules, key, now_ms)
    ]
    if not due:
        return None
    _, key = min(due)
    order = merge_order(state, rules, key, seed)
    return TrustedWork(
        "merge", order, f"version {order.base_version + 1} of expert {key[0]} is due"
    )


def merge_is_due(state: SwarmState, rules: Rules, key: LineageKey, now_ms: int) -> bool:
    """Quorum of samples, or the grace time since the verdict on the contribution that could be merged first.

    What is merged anew after a rollback waits for nobody: it made versions once, and fresh work waits for it.
    Every pull of the operator's worker asks this of every lineage, so nothing is counted here.
    """
    policy, first = rules.charter.policy, next(iter(state.mergeable[key]), None)
    if first is None:
        return False
    if key in state.ahead:
        return True
    waited_ms = now_ms - state.work[first].decided_at_ms
    enough = state.mergeable_samples[key] >= policy.quorum_samples
    return enough or waited_ms >= policy.grace_s * 1000


def trusted_under_way(state: SwarmState, rules: Rules) -> set[LeaseId]:
    """The operator's leases, and whatever is done with blobs still to come."""
    return state.open_by_node.get(rules.operator, set()) | state.unsettled


def merge_order(state: SwarmState, rules: Rules, key: LineageKey, seed: int) -> MergeOrder:
    """The order that cuts the next version: deltas sorted by contribution, stale ones weighing less.

    A single contributor's delta is taken as it is: rate 1, no momentum.
    """
    policy = rules.charter.policy
    base = state.newest(key)
    chosen = sorted(state.mergeable[key])[:MAX_DELTAS_PER_MERGE]
    weights = merge_weights(state, rules, chosen)
    deltas = [
        WeightedDelta(
            contribution=lease_id, delta=_trained(state, lease_id).delta, weight=weights[lease_id]
        )
        for lease_id in chosen
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
        freshness=_freshness(state, rules, weights),
    )


def _freshness(state: SwarmState, rules: Rules, weights: Mapping[LeaseId, float]) -> float:
    """What staleness leaves of these weights, as a share; a charter that leaves nothing weighs all alike."""
    decay = rules.charter.policy.staleness_decay
    fresh = sum(
        weight / decay ** state.staleness(_train_order(state, lease_id))
        for lease_id, weight in weights.items()
        if weight > 0.0
    )
    return sum(weights.values()) / fresh if fresh > 0.0 else 1.0


def merge_weights(state: SwarmState, rules: Rules, chosen: list[LeaseId]) -> dict[LeaseId, float]:
    """Samples, less for stale work; accounts that are not proven get at most the charter's share beside proven ones."""
    policy = rules.charter.policy
    weights = {
        lease_id: _trained(state, lease_id).samples
        * policy.staleness_decay ** state.staleness(_train_order(state, lease_id))
        for lease_id in chosen
    }
    unproven = {
        lease_id for lease_id in chosen if not is_proven(state, rules, state.answers_for(lease_id))
    }
    theirs = sum(weights[lease_id] for lease_id in unproven)
    proven, share = sum(weights.values()) - theirs, policy.unproven_share
    if proven <= 0.0 or theirs <= share * (proven + theirs):
        return weights
    factor = share * proven / ((1.0 - share) * theirs)
    return {
        lease_id: weight * (factor if lease_id in unproven else 1.0)
        for lease_id, weight in weights.items()
    }


def _routing(state: SwarmState, rules: Rules, seed: int) -> TrustedWork | None:
    """The router depends on the data only, so it is trained once, while the experts train."""
    if state.router is not None or _is_open(state, rules, "route"):
        return None
    order = RouteOrder(steps=rules.charter.model.router.steps, seed=seed)
    return TrustedWork("route", order, "the router is not trained yet")


def _release(state: SwarmState, rules: Rules, seed: int) -> TrustedWork | None:
    """The release that is due, one at a time."""
    if _is_open(state, rules, "release"):
        return None
    order = release_order(state, rules, seed)
    if order is None:
        return None
    reason = f"the experts are newer than in release {order.version - 1}"
    return TrustedWork("release", order, reason)


def _is_open(state: SwarmState, rules: Rules, purpose: Purpose) -> bool:
    """Whether such work is under way: leased, or done with blobs still to come."""
    under_way = trusted_under_way(state, rules)
    return any(state.leases[lease_id].purpose == purpose for lease_id in under_way)


def _train_order(state: SwarmState, lease_id: LeaseId) -> TrainOrder:
    order = state.leases[lease_id].order
    assert isinstance(order, TrainOrder)
    return order


def _trained(state: SwarmState, lease_id: LeaseId) -> TrainOutcome:
    outcome = state.work[lease_id].outcome
    assert isinstance(outcome, TrainOutcome)
    return outcome
