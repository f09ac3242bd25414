"""Audits by duplicate lease: who does a contribution again, and what the comparison says. Owns these decisions; pure.

A copy is an identical train order for another account. Its node can't tell it from any other work; the coordinator
alone keeps the purpose. Two runs that agree confirm each other. Two that differ accuse nobody: short work is done once
more by the operator's own worker, and whoever agrees with it is right, however many lie. Other accounts do what is too
long for it, or what it found no time for, until three agree, or two of which one is proven; whoever differs from these
is refuted. So one liar can neither frame nor wave through, and two fresh identities can't frame.
"""

from collections.abc import Collection, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice

from kinoswarm_coordinator import referee
from kinoswarm_coordinator.audit_band import allowed_distance
from kinoswarm_coordinator.state import AuditCase, AuditResult, Rules, SwarmState
from kinoswarm_coordinator.trust import is_proven, num_proven
from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.messages import CompareOrder, DeltaDistance, PullLease, TrainOrder

_MOST_RUNS = 5
"""Of one work order: after that many without a majority nobody is to blame."""
_CONVICTING = 3
_LOOKED_AT = 64
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
    if not state.audits_wanted and not state.audits_disputed:
        return None
    trusted = (
        is_proven(state, rules, account)
        or num_proven(state, rules, _ENOUGH_PROVEN) < _ENOUGH_PROVEN
    )
    for primary in _waiting(state, rules, auditor.now_ms):
        case, order = state.audits[primary], state.leases[primary].order
        assert isinstance(order, TrainOrder)
        if not trusted and not _has_waited(rules, case, auditor.now_ms):
            if primary in state.audits_disputed:
                continue
            # Nor have those behind it, but for one whose auditor failed: its turn comes.
            return None
        if account in case.accounts or order.mode not in auditor.body.modes:
            continue
        if _is_next_door(state, rules, primary, auditor):
            continue
        in_time = _helper_in_time(rules, case, order, auditor) if auditor.body.helper else True
        if in_time and order.steps <= auditor.most_steps:
            return primary, order
    return None


def _waiting(state: SwarmState, rules: Rules, now_ms: int) -> Iterator[LeaseId]:
    """Cases that want a volunteer's run: first disputes that are not the referee's."""
    for primary in islice(state.audits_disputed, referee.DISPUTES_LOOKED_AT):
        if not referee.is_left_to_it(state, rules, primary, now_ms):
            yield primary
    yield from islice(state.audits_wanted, _LOOKED_AT)


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
    own = referee.its_run(state, runs)
    if own is not None and len(friends[own]) > 1:
        measured = {(p.first, p.second): p.distance for p in distances if p.distance is not None}
        return _found(runs, primary, referee.believed(friends, own, measured), own)
    largest = max(friends, key=len)
    rivals = [group for group in friends if len(group) == len(largest) and group != largest]
    found = _found(runs, primary, largest - {own}, own)
    if (
        len(found.agreeing) < 2
        or rivals
        or (found.differing and not _convicts(state, rules, found.agreeing))
    ):
        result: AuditResult = "open" if len(runs) < _MOST_RUNS else "unclear"
        return Finding(result=result, agreeing=[], differing=[])
    return found


def _found(
    runs: Sequence[LeaseId], primary: LeaseId, right: Collection[int | None], own: int | None
) -> Finding:
    """The referee's run speaks for others and is none of them."""
    agreeing = [run for index, run in enumerate(runs) if index in right]
    differing = [run for index, run in enumerate(runs) if index not in right and index != own]
    result: AuditResult = "confirmed" if primary in agreeing else "refuted"
    return Finding(result=result, agreeing=agreeing, differing=differing)


def _convicts(state: SwarmState, rules: Rules, agreeing: Sequence[LeaseId]) -> bool:
    """Two fresh identities are cheap: against somebody speak three runs that agree, or two with a proven account."""
    return len(agreeing) >= _CONVICTING or any(
        is_proven(state, rules, state.answers_for(run)) for run in agreeing
    )


def waited_in_vain(state: SwarmState, rules: Rules, now_ms: int) -> list[LeaseId]:
    """Open cases that nobody could finish in the charter's time, oldest first; a dispute has it from its beginning.

    Else a liar that hands in late would leave no time for those who could tell.
    """
    limit_ms = rules.charter.policy.audit_wait_s * 1000
    found = []
    for primary in state.audits_open:
        case = state.audits[primary]
        if now_ms - case.opened_at_ms < limit_ms:
            break
        if now_ms - max(case.opened_at_ms, case.disputed_at_ms) >= limit_ms:
            found.append(primary)
    return found
