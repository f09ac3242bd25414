"""Disputes that the operator's own worker ends by a run of its own: which ones, and who is believed then. Pure.

Its worker makes the model, so its run stands against any number of liars. It is no contribution: no verdict, no trust,
no credit, no version. Alone with its result it accuses nobody, as its machine may be the one that computes wrongly.
"""

from collections.abc import Mapping, Sequence, Set
from itertools import islice

from kinoswarm_coordinator.state import Rules, SwarmState
from kinoswarm_protocol.charter import Policy
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.messages import TrainOrder

DISPUTES_LOOKED_AT = 256
_NEWCOMERS_HALVINGS = 4
_FOR = 0.5
"""It has this share of audit_wait_s from the first comparison that showed a difference; then volunteers vote."""
_LONGEST_S = 1_800.0
"""At the speed of its last run; a longer one would keep everybody's verdicts waiting."""


def next_dispute(state: SwarmState, rules: Rules, now_ms: int) -> tuple[LeaseId, TrainOrder] | None:
    """What the operator's worker is to do once more: the dispute that has waited longest, and its order."""
    for primary in islice(state.audits_disputed, DISPUTES_LOOKED_AT):
        if is_left_to_it(state, rules, primary, now_ms):
            return primary, _order(state, primary)
    return None


def is_left_to_it(state: SwarmState, rules: Rules, primary: LeaseId, now_ms: int) -> bool:
    """Whether volunteers wait: the work is no longer than a newcomer's, and the operator's worker has still to try."""
    case, policy = state.audits[primary], rules.charter.policy
    if not rules.referee or case.refereed or primary not in state.audits_disputed:
        return False
    steps = _order(state, primary).steps
    waited_s = (now_ms - case.disputed_at_ms) / 1000
    return (
        steps <= newcomers_steps(policy, policy.segment_steps_max)
        and steps * state.referee_seconds_per_step <= _LONGEST_S
        and waited_s < _FOR * policy.audit_wait_s
    )


def newcomers_steps(policy: Policy, longest: int) -> int:
    """Steps of a newcomer's segment where others train `longest`: a sixteenth.

    All of its work is done twice until it is proven, and many never stay so long. With 30% of volunteers gone a day,
    audits then cost 4% of the training instead of 12% (`kinoswarm simulate`).
    """
    return max(policy.segment_steps_min, longest >> _NEWCOMERS_HALVINGS)


def its_run(state: SwarmState, runs: Sequence[LeaseId]) -> int | None:
    """Which of the runs is the referee's, if one is."""
    own = (index for index, run in enumerate(runs) if state.leases[run].purpose == "referee")
    return next(own, None)


def believed(
    friends: Sequence[Set[int]], own: int, distance: Mapping[tuple[int, int], float]
) -> list[int]:
    """Which runs are right by the referee's, at index `own`: those near to it and, the nearest first, to each other.

    Runs of volunteers' machines are held to a narrower band among themselves than against the referee's, whose machine
    is of another kind: of two that differ by that band, both near enough to the referee, the nearer one is right.
    """

    def to_own(index: int) -> float:
        return distance[min(index, own), max(index, own)]

    found: list[int] = []
    for index in sorted(friends[own] - {own}, key=to_own):
        if all(other in friends[index] for other in found):
            found.append(index)
    return found


def _order(state: SwarmState, primary: LeaseId) -> TrainOrder:
    order = state.leases[primary].order
    assert isinstance(order, TrainOrder)
    return order
