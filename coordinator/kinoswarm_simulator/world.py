"""The run itself: an event heap in virtual time around the real decisions. Owns the order of things; no wall clock.

Volunteers pull, train, vanish and hand in; their messages are late, lost, doubled and overtake each other. The
operator's worker pulls what there is to check. Whatever is decided is decided by scheduling.decide, submissions.receive
and settle, and folded like a coordinator's log.
"""

import heapq
from collections.abc import Callable
from functools import partial
from random import Random

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.fold import apply
from kinoswarm_coordinator.scheduling import Granted, Pull, decide
from kinoswarm_coordinator.state import Rules, SwarmState
from kinoswarm_coordinator.submissions import Arrival, Denied, expired, receive, settle
from kinoswarm_protocol.ids import BlobId, LeaseId, PeerId
from kinoswarm_protocol.messages import (
    CompareOrder,
    Contribution,
    EvaluateOrder,
    FailedOutcome,
    Lease,
    Order,
    Outcome,
    PullLease,
    TrainOrder,
)
from kinoswarm_simulator.books import Books
from kinoswarm_simulator.plan import DAY_MS, OPERATOR, STEPS_PER_S, Plan, rules_of
from kinoswarm_simulator.synthetic import DELTA_BYTES, Truth
from kinoswarm_simulator.volunteers import Volunteer, joined, volunteer

_TICK_MS = 60_000
_REPLY_TIMEOUT_MS = 10_000
_LEAST_RETRY_MS = 30_000
"""A daemon may ask again sooner; here it would only make the heap longer."""
_OPERATOR_IDLE_MS = 5_000
_CONTROL_BYTES = 700
_PROGRESS_EVERY_MS = 300_000
_CHECK_S = 6.0
"""Of the held-out pairs once through the model."""
_READ_S = 0.5
"""Of one delta, for a comparison."""


def _takes_s(order: Order) -> float:
    """On one of the operator's machines."""
    match order:
        case EvaluateOrder(deltas=deltas):
            return _CHECK_S * (1 + len(deltas))
        case CompareOrder(deltas=deltas):
            return _READ_S * len(deltas)
        case TrainOrder(steps=steps):
            return steps / STEPS_PER_S
        case _:
            return 2 * _CHECK_S


class World:
    """One simulated swarm."""

    def __init__(self, plan: Plan, rules: Rules | None = None, truth: Truth | None = None) -> None:
        self.plan, self.rules = plan, rules or rules_of(plan)
        self.state, self.books, self.truth = SwarmState(), Books(), truth or Truth()
        self.now_ms, self.num_events = 0, 0
        self.volunteers: dict[PeerId, Volunteer] = {}
        self.denied: dict[str, int] = {}
        self.versions_at: list[tuple[int, float]] = []
        """(time, mean version) every tick, for the plot."""
        self._chance = Random(plan.seed)  # noqa: S311  a run must be repeatable
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._current: dict[PeerId, LeaseId] = {}

    def run(
        self,
        watch: Callable[["World"], None] = lambda world: None,
        is_over: Callable[["World"], bool] = lambda world: False,
    ) -> None:
        """From the founding to the plan's end, or until `is_over`; `watch` is called after every event of the log's."""
        self.record(
            [
                ev.Founded(
                    at_ms=0,
                    num_clusters=self.plan.num_clusters,
                    seed_checkpoint=BlobId(self.rules.charter.seed_checkpoint),
                )
            ]
        )
        for _ in range(self.plan.nodes):
            self._at(
                self._chance.randrange(max(1, round(self.plan.join_within_s * 1000))), self._join
            )
        self._at(0, self._operator_pulls)
        self._at(_TICK_MS, self._tick)
        while self._heap and self._heap[0][0] < self.plan.ends_at_ms:
            self.now_ms, _, act = heapq.heappop(self._heap)
            act()
            watch(self)
            if is_over(self):
                break
        else:
            self.now_ms = self.plan.ends_at_ms
        if self.now_ms % DAY_MS == 0:
            self.books.close_day()
        self._close_books()

    # --- volunteers ---------------------------------------------------------------------------

    def _join(self) -> None:
        one = volunteer(self.plan, len(self.volunteers), self.now_ms, self._chance)
        self.volunteers[one.peer] = one
        self.record([joined(one, self.now_ms)])
        one.waiting = self._fresh_id()
        self._at(one.next_on_ms(self.now_ms), partial(self._pull, one, one.waiting))
        if one.vanishes_at_ms < self.plan.ends_at_ms:
            self._at(one.vanishes_at_ms, self._join)

    def _pull(self, one: Volunteer, request_id: str) -> None:
        """Send a pull; when nothing comes back, the same one again."""
        if self.now_ms >= one.vanishes_at_ms or one.waiting != request_id:
            return
        if not one.is_on(self.now_ms):
            self._at(one.next_on_ms(self.now_ms), partial(self._pull, one, request_id))
            return
        self._send(one, partial(self._pull_arrives, one, request_id))
        self._after(_REPLY_TIMEOUT_MS, partial(self._pull_again, one, request_id))

    def _pull_again(self, one: Volunteer, request_id: str) -> None:
        if one.waiting == request_id:
            self._pull(one, request_id)

    def _pull_arrives(self, one: Volunteer, request_id: str) -> None:
        modes = self.rules.charter.model.modes
        body = PullLease(modes=modes, clusters_on_disk=[], seconds_per_step=one.seconds_per_step)
        pull = Pull(
            peer=one.peer,
            request_id=request_id,
            body=body,
            now_ms=self.now_ms,
            seed=self._chance.getrandbits(128),
        )
        answer = decide(self.state, self.rules, pull)
        if isinstance(answer, Granted):
            if answer.event is not None:
                self.record([answer.event])
            self._send(one, partial(self._begin, one, answer.lease, request_id))
        else:
            wait_ms = max(_LEAST_RETRY_MS, round(answer.retry_after_s * 1000))
            self._send(one, partial(self._idle, one, request_id, wait_ms))

    def _idle(self, one: Volunteer, request_id: str, wait_ms: int) -> None:
        if one.waiting == request_id:
            one.waiting = self._fresh_id()
            self._after(wait_ms, partial(self._pull, one, one.waiting))

    def _begin(self, one: Volunteer, lease: Lease, request_id: str) -> None:
        lease_id = LeaseId(lease.lease_id)
        if one.peer in self._current or lease_id in self.state.work or one.waiting != request_id:
            return
        self._current[one.peer], one.waiting = lease_id, ""
        order = lease.order
        assert isinstance(order, TrainOrder)
        work_ms = order.steps * one.seconds_per_step * 1000 * self._chance.uniform(0.9, 1.15)
        fails = self._chance.random() < self.plan.churn.fail
        if fails:
            work_ms *= self._chance.random()
        ends = one.finishes_at_ms(self.now_ms, work_ms)
        seen_until = min(ends, one.vanishes_at_ms, self.plan.ends_at_ms)
        self.books.worked_ms[lease_id] = one.on_between(self.now_ms, seen_until)
        self.books.bytes_in += _CONTROL_BYTES * (seen_until - self.now_ms) / _PROGRESS_EVERY_MS
        self.books.bytes_out += DELTA_BYTES
        work = one.behaviour.work(one.peer, one.done, self._chance)
        if work is None:
            self._at(lease.deadline_ms + 1, partial(self._free, one, lease_id))
        elif ends < one.vanishes_at_ms:
            outcome: Outcome = FailedOutcome(code="work_failed", sentence="made up")
            if not fails:
                outcome = self.truth.trained(lease, work, work_ms / 1000)
            self._at(ends, partial(self._hand_in, one, lease_id, outcome))

    def _hand_in(self, one: Volunteer, lease_id: LeaseId, outcome: Outcome) -> None:
        if self._current.get(one.peer) != lease_id or self.now_ms >= one.vanishes_at_ms:
            return
        self._send(one, partial(self._work_arrives, one, lease_id, outcome))
        self._after(_REPLY_TIMEOUT_MS, partial(self._hand_in, one, lease_id, outcome))

    def _work_arrives(self, one: Volunteer, lease_id: LeaseId, outcome: Outcome) -> None:
        result = self._received(one.peer, lease_id, outcome)
        if isinstance(result, Denied):
            self.denied[result.code] = self.denied.get(result.code, 0) + 1
        elif any(isinstance(event, ev.WorkReceived) for event in result):
            one.done += 1
            self.books.bytes_in += DELTA_BYTES
            seconds = DELTA_BYTES / self.plan.wire.upload_bytes_per_s
            self._after(round(seconds * 1000), partial(self._blobs_here, lease_id))
        self._send(one, partial(self._free, one, lease_id))

    def _free(self, one: Volunteer, lease_id: LeaseId) -> None:
        """The receipt is here: next, please."""
        if self._current.get(one.peer) == lease_id:
            del self._current[one.peer]
            one.waiting = self._fresh_id()
            self._pull(one, one.waiting)

    # --- the coordinator ----------------------------------------------------------------------

    def _received(
        self, peer: PeerId, lease_id: LeaseId, outcome: Outcome
    ) -> list[ev.Event] | Denied:
        contribution = Contribution(
            lease_id=lease_id, node=peer, finished_at_ms=self.now_ms, outcome=outcome
        )
        arrival = Arrival(raw=b"", now_ms=self.now_ms, seed=self._chance.getrandbits(64))
        result = receive(self.state, self.rules, peer, contribution, arrival)
        if not isinstance(result, Denied):
            self.record(result)
        return result

    def _blobs_here(self, lease_id: LeaseId) -> None:
        if lease_id in self.state.unsettled:
            self.record(settle(self.state, self.rules, self.state.work[lease_id], self.now_ms))

    def _operator_pulls(self) -> None:
        body = PullLease(
            modes=self.rules.charter.model.modes, clusters_on_disk=[], seconds_per_step=0.0
        )
        pull = Pull(
            peer=OPERATOR,
            request_id=self._fresh_id(),
            body=body,
            now_ms=self.now_ms,
            seed=self._chance.getrandbits(128),
        )
        answer = decide(self.state, self.rules, pull)
        if not isinstance(answer, Granted):
            self._after(_OPERATOR_IDLE_MS, self._operator_pulls)
            return
        assert answer.event is not None
        self.record([answer.event])
        order = answer.lease.order
        takes_ms = 1000 * _takes_s(order) / self.plan.num_trusted
        self._after(round(takes_ms), partial(self._operator_done, answer.lease))

    def _operator_done(self, lease: Lease) -> None:
        outcome = self.truth.checked(self.rules, lease, self._chance)
        self._received(OPERATOR, LeaseId(lease.lease_id), outcome)
        self._blobs_here(LeaseId(lease.lease_id))
        self._operator_pulls()

    def _tick(self) -> None:
        self.record(expired(self.state, self.rules, self.now_ms))
        if self.now_ms % DAY_MS == 0:
            self.books.close_day()
        line = [versions[-1].position for versions in self.state.versions.values()]
        self.versions_at.append((self.now_ms, sum(line) / len(line)))
        self._after(_TICK_MS, self._tick)

    def record(self, events: list[ev.Event]) -> None:
        """Fold events, and count them."""
        for event in events:
            apply(self.state, event)
            self.books.follow(event, self.rules)
        self.num_events += len(events)

    # --- time and network ---------------------------------------------------------------------

    def _send(self, one: Volunteer, act: Callable[[], None]) -> None:
        """A message from or to a volunteer: late, perhaps lost, perhaps twice."""
        wire, chance = self.plan.wire, self._chance
        if wire.cuts_off(one.number, self.now_ms):
            return
        self.books.bytes_in += _CONTROL_BYTES
        copies = 1 + (chance.random() < wire.duplicate)
        for _ in range(copies):
            if chance.random() >= wire.loss:
                self._after(round(chance.expovariate(1.0 / wire.latency_ms)), act)

    def _after(self, delay_ms: int, act: Callable[[], None]) -> None:
        self._at(self.now_ms + delay_ms, act)

    def _at(self, at_ms: int, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_ms, self._count, act))

    def _fresh_id(self) -> str:
        return f"{self._chance.getrandbits(128):032x}"

    def _close_books(self) -> None:
        end = self.plan.ends_at_ms
        for one in self.volunteers.values():
            if one.behaviour.name == "honest":
                until = min(end, one.vanishes_at_ms)
                self.books.available_ms += one.on_between(one.joined_at_ms, until)
