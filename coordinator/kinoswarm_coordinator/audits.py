"""Audits by duplicate lease: who does a contribution again, and what the comparison says. Owns these decisions; pure.

A copy is an identical train order for another account. Its node can't tell it from any other work; the coordinator
alone keeps the purpose. Two runs that agree confirm each other. Two that differ accuse nobody: short work is done once
more by the operator's own worker, and whoever agrees with it is right, however many lie. Other accounts do what is too
long for it, or what it found no time for, until three agree, or two of which one is proven; whoever differs from these
is refuted. So one liar can neither frame nor wave through, and two fresh identities can't frame.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import islice

from kinoswarm_coordinator.audit_band import allowed_distance
from kinoswarm_coordinator.state import AuditCase, AuditResult, Rules, SwarmState
from kinoswarm_coordinator.trust import is_proven, num_proven
from kinoswarm_protocol.charter import Policy
from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.messages import CompareOrder, DeltaDistance, PullLease, TrainOrder

_NEWCOMERS_HALVINGS = 4
_MOST_RUNS = 5
"""Of one work order: after that many without a majority nobody is to blame."""
_CONVICTING = 3
_LOOKED_AT = 64
_REFEREE_FOR = 0.5
"""Disputed work is left to the operator's worker until its case has waited for this share of audit_wait_s."""
_ENOUGH_PROVEN = 3
_NEIGHBOURS_AFTER = 0.5
"""Who shares a range of addresses with a run audits it once the case has waited for this share of audit_wait_s."""
_HELPERS_SHARE = 0.5
"""A helper is given an audit that takes it at most this share of the time that is left for it."""
_NEWCOMERS_AFTER = 0.25
"""Newcomers audit once a case has waited for this share of audit_wait_s, or while hardly anybody is proven."""


@dataclass(frozen=True, kw_only=True)
class Auditor:
    """A node that asks for work."""

    peer: PeerId
    body: PullLease
    now_ms: int
    most_steps: int
    """Of its own segments: a longer one would give the audit away, and end late."""
    neighbours: Set[PeerId] = frozenset()
    """Machines behind the same range of addresses."""


def audit_for(
    state: SwarmState, rules: Rules, auditor: Auditor
) -> tuple[LeaseId, TrainOrder] | None:
    """The contribution that this node may do again, and its order; the one that has waited longest."""
    account = state.account_of(auditor.peer)
    if not state.audits_wanted:
        return None
    trusted = (
        is_proven(state, rules, account)
        or num_proven(state, rules, _ENOUGH_PROVEN) < _ENOUGH_PROVEN
    )
    wanted = (
        primary
        for primary in state.audits_wanted
        if not _left_to_referee(state, rules, primary, auditor.now_ms)
    )
    for primary in islice(wanted, _LOOKED_AT):
        case, order = state.audits[primary], state.leases[primary].order
        assert isinstance(order, TrainOrder)
        if not trusted and not _has_waited(rules, case, auditor.now_ms):
            return (
                None  # nor have those behind it, but for one whose auditor failed: its turn comes
            )
        if account in case.accounts or order.mode not in auditor.body.modes:
            continue
        if _is_next_door(state, rules, primary, auditor):
            continue
        in_time = _helper_in_time(rules, case, order, auditor) if auditor.body.helper else True
        if in_time and order.steps <= auditor.most_steps:
            return primary, order
    return None


def _helper_in_time(rules: Rules, case: AuditCase, order: TrainOrder, auditor: Auditor) -> bool:
    """Whether a helper, which may be a hundred times slower than who did the work, can still be of use."""
    waited_s = (auditor.now_ms - case.opened_at_ms) / 1000
    left_s = rules.charter.policy.audit_wait_s - waited_s
    speed = auditor.body.seconds_per_step
    return 0.0 < order.steps * speed <= _HELPERS_SHARE * left_s


def _has_waited(rules: Rules, case: AuditCase, now_ms: int) -> bool:
    """Newcomers are the last choice: fresh identities are cheap, and two of them would vouch for each other."""
    waited_s = (now_ms - case.opened_at_ms) / 1000
    return waited_s >= _NEWCOMERS_AFTER * rules.charter.policy.audit_wait_s


def _is_next_door(state: SwarmState, rules: Rules, primary: LeaseId, auditor: Auditor) -> bool:
    """Whether a run of this case came from the same range of addresses, unless nobody else was found for long."""
    case = state.audits[primary]
    waited_s = (auditor.now_ms - case.opened_at_ms) / 1000
    if waited_s >= _NEIGHBOURS_AFTER * rules.charter.policy.audit_wait_s:
        return False
    return any(state.leases[run].lease.node in auditor.neighbours for run in (primary, *case.runs))


def refereed(state: SwarmState, rules: Rules, now_ms: int) -> tuple[LeaseId, TrainOrder] | None:
    """The dispute that the operator's worker is to end by a run of its own: the one that has waited longest."""
    for primary in state.audits_disputed:
        if _left_to_referee(state, rules, primary, now_ms):
            order = state.leases[primary].order
            assert isinstance(order, TrainOrder)
            return primary, order
    return None


def _left_to_referee(state: SwarmState, rules: Rules, primary: LeaseId, now_ms: int) -> bool:
    """Whether runs differ about work no longer than a newcomer's, that the operator's worker did not try yet."""
    if not rules.referee or primary not in state.audits_disputed:
        return False
    case, order, policy = state.audits[primary], state.leases[primary].order, rules.charter.policy
    assert isinstance(order, TrainOrder)
    waited_s = (now_ms - case.opened_at_ms) / 1000
    return (
        rules.operator not in case.accounts
        and order.steps <= newcomers_steps(policy, policy.segment_steps_max)
        and waited_s < _REFEREE_FOR * policy.audit_wait_s
    )


def newcomers_steps(policy: Policy, longest: int) -> int:
    """Steps of a newcomer's segment where others train `longest`: a sixteenth.

    All of its work is done twice until it is proven, and many never stay so long. With 30% of volunteers gone a day,
    audits then cost 4% of the training instead of 12% (`kinoswarm simulate`).
    """
    return max(policy.segment_steps_min, longest >> _NEWCOMERS_HALVINGS)


def comparison_order(state: SwarmState) -> tuple[LeaseId, CompareOrder] | None:
    """The next case whose runs are here and not compared yet."""
    for primary in state.audits_ready:
        if primary in state.comparing:
            continue
        order = state.leases[primary].order
        assert isinstance(order, TrainOrder)
        deltas = [state.delta_of(lease_id) for lease_id in state.audits[primary].runs]
        return primary, CompareOrder(cluster=order.cluster, deltas=deltas)
    return None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a comparison of runs says."""

    result: AuditResult
    """`open` wants one more run."""
    agreeing: list[LeaseId]
    differing: list[LeaseId]


def finding(
    state: SwarmState,
    rules: Rules,
    runs: Sequence[LeaseId],
    primary: LeaseId,
    distances: Sequence[DeltaDistance],
) -> Finding:
    """Compare the measured distances of runs with what honest machines may differ by."""
    friends: list[set[int]] = [{index} for index in range(len(runs))]
    for pair in distances:
        limit = allowed_distance(state, rules, runs[pair.first], runs[pair.second])
        if pair.distance is not None and pair.distance <= limit:
            friends[pair.first].add(pair.second)
            friends[pair.second].add(pair.first)
    own = referees_run(state, rules, runs)
    if own is not None and len(friends[runs.index(own)]) > 1:
        return _as_the_referee(runs, primary, own, friends[runs.index(own)])
    largest = max(friends, key=len)
    rivals = [group for group in friends if len(group) == len(largest) and group != largest]
    agreeing = [run for index, run in enumerate(runs) if index in largest]
    differing = [run for run in runs if run not in agreeing and run != own]
    if len(agreeing) < 2 or rivals or (differing and not _convicts(state, rules, agreeing)):
        result: AuditResult = "open" if len(runs) < _MOST_RUNS else "unclear"
        return Finding(result=result, agreeing=[], differing=[])
    result = "confirmed" if primary in agreeing else "refuted"
    return Finding(result=result, agreeing=agreeing, differing=differing)


def referees_run(state: SwarmState, rules: Rules, runs: Sequence[LeaseId]) -> LeaseId | None:
    """Which of the runs is the operator's own, if one is."""
    return next((run for run in runs if state.work[run].node == rules.operator), None)


def _as_the_referee(
    runs: Sequence[LeaseId], primary: LeaseId, own: LeaseId, friends: Set[int]
) -> Finding:
    """Its worker makes the model, so its run stands; alone with its result it accuses nobody (then others vote)."""
    agreeing = [run for index, run in enumerate(runs) if index in friends and run != own]
    differing = [run for index, run in enumerate(runs) if index not in friends]
    result: AuditResult = "confirmed" if primary in agreeing else "refuted"
    return Finding(result=result, agreeing=agreeing, differing=differing)


def _convicts(state: SwarmState, rules: Rules, agreeing: Sequence[LeaseId]) -> bool:
    """Two fresh identities are cheap: against somebody speak three runs that agree, or two with a proven account."""
    return len(agreeing) >= _CONVICTING or any(
        is_proven(state, rules, state.answers_for(run)) for run in agreeing
    )


def waited_in_vain(state: SwarmState, rules: Rules, now_ms: int) -> list[LeaseId]:
    """Open cases that nobody could finish in the charter's time, oldest first."""
    limit_ms = rules.charter.policy.audit_wait_s * 1000
    found = []
    for primary in state.audits_open:
        if now_ms - state.audits[primary].opened_at_ms < limit_ms:
            break
        found.append(primary)
    return found
