"""The life of a node as a table. Everything that decides what a node does next lives here, and nothing else does.

    starting -> joining -> (testing) -> idle -> fetching -> training -> submitting -> idle
                               resuming ^  (a segment found on disk, if it is still wanted)
                        waiting_verdict    (nothing more to do before a verdict)
                        paused             (by a person, by the governor, or because of trouble with this machine)
                        leaving -> stopped

`step` is pure: no clock, no chance, no IO. In every phase but `stopped` exactly one activity runs, and every activity
ends in an event, so no phase can get stuck. An event that has no entry for a phase came late and changes nothing.
"""

import random
from collections.abc import Callable
from typing import TypeVar

from msgspec import structs

from kinoswarm_node import life_events as ev
from kinoswarm_node.life_events import Activity, DropWork, Effect, Event, Fit, Segment
from kinoswarm_node.life_state import NodeState, Phase, Step
from kinoswarm_protocol.errors import Code

BACKOFF_FIRST_MS = 1_000
BACKOFF_MAX_MS = 5 * 60_000
"""Long enough that a thousand nodes don't hammer a coordinator that restarts, short enough for a home user."""

MAX_WORKER_DEATHS = 3
"""Per segment: a driver that crashes once may recover, one that crashes four times won't."""

MAX_FAILURES = 3
"""Segments in a row: whoever can't do three different ones needs a person to look at it."""

MAX_PENDING = 4
"""Unverified contributions that are kept and served at the same time."""

TROUBLE_RETRY_MS = 60_000
HOLD_MS = 60_000
"""A wait for something that another task reports; bounded so that the phase re-examines itself."""

PATIENT_HOLDS = 10
"""Holds that a verdict is waited for: a coordinator that lost them must not stop the node for good."""

MIN_RETRY_MS = 200
"""A coordinator that asks for less is not asked more often than this."""

_WAIT_AND_RETRY = frozenset({Code.OVERLOADED, Code.RATE_LIMITED, Code.UNREACHABLE})
_CANNOT_JOIN = frozenset({Code.NOT_PERMITTED, Code.VERSION_MISMATCH, Code.WRONG_SWARM})

E = TypeVar("E", bound=ev._Event)
Handler = Callable[[NodeState, E, int], Step]
_TABLE: dict[tuple[Phase, type], Handler[Event]] = {}


def step(state: NodeState, event: Event, now_ms: int, seed: int) -> Step:
    """Decide what follows from `event`. `seed` only spreads the retries of many nodes.

    An empty reason with no effects means that the event came late and changes nothing.
    """
    handler = _TABLE.get((state.phase, type(event)))
    if handler is None:
        return Step(state, (), "")
    decided = handler(state, event, seed)
    if decided.state.phase != state.phase:
        return decided._replace(state=structs.replace(decided.state, since_ms=now_ms))
    return decided


def is_expected(phase: Phase, event: type) -> bool:
    """Whether `event` changes anything in `phase`."""
    return (phase, event) in _TABLE


def backoff_ms(attempt: int, seed: int) -> int:
    """Doubling delays with jitter over their upper half, so that nodes that failed together don't return together."""
    ceiling = min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** min(attempt, 20))
    return int(ceiling * (0.5 + 0.5 * random.Random(f"{seed}:{attempt}").random()))  # noqa: S311


def _on(*phases: Phase) -> Callable[[Handler[E]], Handler[E]]:
    """Enter a handler into the table for its event's type, given by the annotation of its second parameter."""

    def enter(handler: Handler[E]) -> Handler[E]:
        kind = handler.__annotations__["event"]
        for phase in phases:
            _TABLE[(phase, kind)] = handler  # type: ignore[assignment]
        return handler

    return enter


_RUNNING = tuple(phase for phase in Phase if phase not in (Phase.LEAVING, Phase.STOPPED))
_AT_WORK = (Phase.FETCHING, Phase.TRAINING, Phase.RESUMING)
_GOVERNED = (*_AT_WORK, Phase.TESTING, Phase.IDLE, Phase.WAITING_VERDICT)
"""What stops when the governor says so; the person's own pause stops everything."""


def _go(state: NodeState, phase: Phase, activity: Activity, reason: str, *more: Effect) -> Step:
    return Step(structs.replace(state, phase=phase), (*more, activity), reason)


def _leave(state: NodeState, reason: str, fault: str = "") -> Step:
    return _go(structs.replace(state, fault=fault), Phase.LEAVING, ev.Leave(), reason)


def _next_task(state: NodeState, reason: str, *more: Effect) -> Step:
    """What to do when nothing is running: send what is unsent, go on with what is begun, wait, or ask for work."""
    if state.by_person:
        return _go(state, Phase.PAUSED, ev.Hold(delay_ms=HOLD_MS), reason, *more)
    if not state.joined:
        return _go(state, Phase.JOINING, ev.Join(), reason, *more)
    if state.unsent:
        return _go(state, Phase.SUBMITTING, ev.Submit(lease_id=state.unsent), reason, *more)
    if state.finishing and not state.segment:
        step = _leave(state, f"{reason} Nothing is left to finish: leaving, as you asked.")
        return step._replace(effects=(*more, *step.effects))
    if state.governed:
        hold = ev.Hold(delay_ms=HOLD_MS)
        return _go(state, Phase.PAUSED, hold, _sentence(state.governed), *more)
    if not state.tested:
        testing = f"{reason} Testing this machine with one known training step."
        return _go(state, Phase.TESTING, ev.TestSelf(), testing, *more)
    if state.segment:
        return _go(state, Phase.RESUMING, ev.AskGoOn(segment=state.segment), reason, *more)
    if state.once and state.accepted:
        step = _leave(state, f"{reason} One accepted segment was asked for: leaving.")
        return step._replace(effects=(*more, *step.effects))
    if len(state.pending) >= (1 if state.once else MAX_PENDING):
        waiting = f"{reason} Waiting for a verdict on {len(state.pending)} sent contribution(s)."
        return _go(state, Phase.WAITING_VERDICT, ev.Hold(delay_ms=HOLD_MS), waiting, *more)
    return _go(state, Phase.IDLE, ev.Pull(), reason, *more)


def _retry(state: NodeState, activity: Activity, what: str, seed: int) -> Step:
    """The same activity again after a growing delay."""
    delay_ms = backoff_ms(state.attempt, seed)
    later = structs.replace(state, attempt=state.attempt + 1)
    again = structs.replace(activity, delay_ms=delay_ms)
    reason = f"{_sentence(what)} Trying again in {_seconds(delay_ms)} (try {state.attempt + 2})."
    return Step(later, (again,), reason)


def _activity_of(state: NodeState) -> Activity:
    """The activity of the current phase, to be repeated."""
    match state.phase, state.segment:
        case Phase.TESTING, _:
            return ev.TestSelf()
        case Phase.RESUMING, Segment() as segment:
            return ev.AskGoOn(segment=segment)
        case Phase.FETCHING, Segment() as segment:
            return ev.Fetch(segment=segment)
        case Phase.TRAINING, Segment() as segment:
            return ev.Train(segment=segment, fit=state.fit)
        case Phase.SUBMITTING, _ if state.unsent:
            return ev.Submit(lease_id=state.unsent)
        case Phase.IDLE, _:
            return ev.Pull()
        case _:
            return ev.Join()


# --- starting and joining -----------------------------------------------------------------------


@_on(Phase.STARTING)
def _started(state: NodeState, event: ev.Started, seed: int) -> Step:
    found = structs.replace(
        state, segment=event.open_segment, unsent=event.unsent, pending=event.pending
    )
    return _go(found, Phase.JOINING, ev.Join(), "Looking for the swarm.")


@_on(Phase.JOINING)
def _joined(state: NodeState, event: ev.Joined, seed: int) -> Step:
    joined = structs.replace(state, joined=True, tested=event.tested, attempt=0, fit=event.fit)
    greeting = f"Joined {event.swarm_name}."
    if event.notice:
        greeting += f" Notice: {_sentence(event.notice)}"
    return _next_task(joined, greeting)


@_on(Phase.JOINING, Phase.TESTING)
def _barred(state: NodeState, event: ev.Barred, seed: int) -> Step:
    return _leave(state, _sentence(event.sentence), fault=event.sentence)


@_on(Phase.TESTING)
def _self_tested(state: NodeState, event: ev.SelfTested, seed: int) -> Step:
    passed = structs.replace(state, tested=True, attempt=0, fit=event.fit)
    if not event.seconds_per_step:
        return _next_task(
            passed, "This machine computes rightly, but this swarm's model is too large for it."
        )
    speed = f"one training step takes {event.seconds_per_step:.2g} s"
    return _next_task(passed, f"This machine passed its test: {speed}.")


@_on(Phase.TESTING)
def _test_died(state: NodeState, event: ev.WorkerDied, seed: int) -> Step:
    if state.attempt + 1 >= MAX_WORKER_DEATHS:
        fault = f"The self-test failed {MAX_WORKER_DEATHS} times. {_sentence(event.sentence)}"
        return _leave(state, fault, fault=fault)
    return _retry(state, ev.TestSelf(), event.sentence, seed)


# --- work ---------------------------------------------------------------------------------------


@_on(Phase.IDLE)
def _granted(state: NodeState, event: ev.LeaseGranted, seed: int) -> Step:
    segment = event.segment
    working = structs.replace(state, segment=segment, attempt=0, deaths=0)
    reason = (
        f"Got a segment: {segment.steps} steps on {segment.label!r}, from version "
        f"{segment.base_version}. Fetching what it needs."
    )
    return _go(working, Phase.FETCHING, ev.Fetch(segment=segment), reason)


@_on(Phase.PAUSED)
def _granted_late(state: NodeState, event: ev.LeaseGranted, seed: int) -> Step:
    held = structs.replace(state, segment=state.segment or event.segment, deaths=0)
    return _counts(held, "Got a segment; it begins when the pause ends.")


@_on(Phase.IDLE)
def _no_work(state: NodeState, event: ev.NoWorkGiven, seed: int) -> Step:
    delay_ms = max(MIN_RETRY_MS, int(event.retry_after_s * 1000))
    reason = f"{_sentence(event.sentence)} Asking again in {_seconds(delay_ms)}."
    return Step(structs.replace(state, attempt=0), (ev.Pull(delay_ms=delay_ms),), reason)


@_on(Phase.RESUMING)
def _go_on(state: NodeState, event: ev.GoOn, seed: int) -> Step:
    fresh = structs.replace(state, segment=event.segment, attempt=0)
    return _go(
        fresh,
        Phase.FETCHING,
        ev.Fetch(segment=event.segment),
        "The segment from before is still wanted: going on with it.",
    )


@_on(*_AT_WORK)
def _withdrawn(state: NodeState, event: ev.Withdrawn, seed: int) -> Step:
    return _abandon(state, f"{_sentence(event.sentence)} The segment was dropped.")


@_on(Phase.FETCHING)
def _fetched(state: NodeState, event: ev.Fetched, seed: int) -> Step:
    if state.segment is None:
        return _next_task(state, "Nothing to train.")
    fresh = structs.replace(state, attempt=0)
    activity = ev.Train(segment=state.segment, fit=state.fit)
    return _go(fresh, Phase.TRAINING, activity, f"Training on {state.segment.label!r}.")


@_on(Phase.TRAINING, Phase.PAUSED)
def _trained(state: NodeState, event: ev.Trained, seed: int) -> Step:
    reason = "The segment is done, and its result is signed and stored: sending it."
    return _stored(state, 0, reason)


@_on(Phase.TRAINING, Phase.PAUSED)
def _gave_up(state: NodeState, event: ev.GaveUp, seed: int) -> Step:
    reason = "Telling the swarm that this machine could not do the segment."
    return _stored(state, state.failures + 1, reason)


def _stored(state: NodeState, failures: int, reason: str) -> Step:
    if state.segment is None:
        return _counts(state, "Nothing was trained.")
    lease_id = state.segment.lease_id
    done = structs.replace(state, segment=None, unsent=lease_id, attempt=0, failures=failures)
    return _counts(done, reason)


def _counts(state: NodeState, reason: str) -> Step:
    """What lies on disk counts also when a pause overtook the event that tells it; the pause goes on."""
    if state.phase is Phase.PAUSED and (state.by_person or not state.joined):
        return Step(state, (), reason)
    return _next_task(state, reason)


@_on(Phase.TRAINING)
def _out_of_memory(state: NodeState, event: ev.OutOfMemory, seed: int) -> Step:
    if state.segment is None:
        return _next_task(state, "Nothing to train.")
    smaller = smaller_fit(state.fit, state.segment.batch_size)
    if smaller is None:
        sentence = (
            "This segment does not fit into this machine's memory, even one clip at a time with activation "
            "checkpointing. A card with more memory would do; where the swarm offers a mode that takes less, such as "
            "LoRA, this machine asks for it next."
        )
        return _give_up(state, Code.WORK_FAILED, sentence)
    activity = ev.Train(segment=state.segment, fit=smaller)
    how = "with activation checkpointing" if smaller.checkpoint_activations else ""
    reason = (
        f"Out of memory: trying again with {smaller.micro_batch} clip(s) at a time {how}".rstrip()
    )
    return Step(structs.replace(state, fit=smaller), (activity,), f"{reason}.")


@_on(Phase.TRAINING)
def _worker_died(state: NodeState, event: ev.WorkerDied, seed: int) -> Step:
    deaths = state.deaths + 1
    if deaths > MAX_WORKER_DEATHS:
        sentence = (
            f"The worker ended {deaths} times in one segment; the last time: {event.sentence}"
        )
        return _give_up(state, Code.WORK_FAILED, sentence)
    died = structs.replace(state, deaths=deaths, attempt=0)
    again = _retry(died, _activity_of(died), event.sentence, seed)
    return again._replace(
        reason=f"{_sentence(event.sentence)} Resuming where it stopped ({deaths} of {MAX_WORKER_DEATHS})."
    )


@_on(Phase.TRAINING)
def _work_failed(state: NodeState, event: ev.WorkFailed, seed: int) -> Step:
    return _give_up(state, event.code, event.sentence)


def smaller_fit(fit: Fit, batch_size: int) -> Fit | None:
    """The next thing to try when memory ran out; None when nothing is left."""
    used = fit.micro_batch or batch_size
    if used > 1:
        return structs.replace(fit, micro_batch=used // 2)
    if not fit.checkpoint_activations:
        return Fit(micro_batch=1, checkpoint_activations=True)
    return None


def _give_up(state: NodeState, code: Code, sentence: str) -> Step:
    if state.segment is None:
        return _next_task(state, _sentence(sentence))
    activity = ev.GiveUp(segment=state.segment, code=code, sentence=sentence)
    return Step(
        structs.replace(state, last_failure=_sentence(sentence)), (activity,), _sentence(sentence)
    )


def _abandon(state: NodeState, reason: str) -> Step:
    if state.segment is None:
        return _next_task(state, reason)
    drop = DropWork(lease_id=state.segment.lease_id, sentence=reason)
    return _next_task(structs.replace(state, segment=None, attempt=0), reason, drop)


# --- sending and verdicts -----------------------------------------------------------------------


@_on(Phase.SUBMITTING, Phase.PAUSED)
def _receipted(state: NodeState, event: ev.Receipted, seed: int) -> Step:
    sent = frozenset() if state.unsent is None else frozenset({state.unsent})
    if event.awaits_verdict:
        done = structs.replace(state, unsent=None, pending=state.pending | sent, attempt=0)
        return _counts(done, "The swarm has the result; it will be checked.")
    told = structs.replace(state, unsent=None, attempt=0)
    if not state.failures:
        return _counts(told, "The swarm has the result and judged it at once.")
    if state.failures >= MAX_FAILURES:
        fault = f"{state.failures} segments in a row failed on this machine. {state.last_failure}"
        return _leave(told, fault, fault=fault)
    return _counts(told, "The swarm knows that this machine could not do the segment.")


@_on(*_RUNNING)
def _verdict(state: NodeState, event: ev.VerdictCame, seed: int) -> Step:
    counted = structs.replace(
        state,
        pending=state.pending - {event.lease_id},
        accepted=state.accepted + int(event.accepted),
        rejected=state.rejected + int(not event.accepted),
    )
    reason = f"{'Accepted' if event.accepted else 'Not accepted'}: {_sentence(event.sentence)}"
    if state.phase is Phase.WAITING_VERDICT or (state.once and state.phase is Phase.IDLE):
        return _next_task(counted, reason)
    return Step(counted, (), reason)


@_on(Phase.WAITING_VERDICT)
def _wait_over(state: NodeState, event: ev.WaitOver, seed: int) -> Step:
    if state.attempt < PATIENT_HOLDS or state.once:
        return _next_task(structs.replace(state, attempt=state.attempt + 1), "No verdict yet.")
    reason = "Verdicts take long: going on with other work meanwhile."
    return _go(structs.replace(state, attempt=0), Phase.IDLE, ev.Pull(), reason)


# --- what goes wrong ----------------------------------------------------------------------------


@_on(Phase.JOINING, Phase.TESTING, Phase.RESUMING, Phase.IDLE, Phase.FETCHING, Phase.TRAINING)
def _lost_touch(state: NodeState, event: ev.LostTouch, seed: int) -> Step:
    return _retry(state, _activity_of(state), event.sentence, seed)


@_on(Phase.SUBMITTING)
def _cannot_send(state: NodeState, event: ev.LostTouch, seed: int) -> Step:
    kept = f"{_sentence(event.sentence)} Your result is kept on disk."
    return _retry(state, _activity_of(state), kept, seed)


@_on(*_AT_WORK, Phase.JOINING, Phase.TESTING, Phase.IDLE, Phase.SUBMITTING)
def _refused(state: NodeState, event: ev.RefusalCame, seed: int) -> Step:
    if event.code in _WAIT_AND_RETRY:
        return _retry(state, _activity_of(state), event.sentence, seed)
    if event.code in _CANNOT_JOIN and state.phase not in (Phase.JOINING, Phase.TESTING):
        later = structs.replace(state, joined=False, attempt=state.attempt + 1)
        rejoin = ev.Join(delay_ms=backoff_ms(state.attempt, seed))
        reason = f"{_sentence(event.sentence)} Joining again."
        return _go(later, Phase.JOINING, rejoin, reason)
    if event.code in _CANNOT_JOIN:
        fault = f"The swarm does not let this node take part: {event.sentence}"
        return _leave(state, _sentence(fault), fault=fault)
    if state.phase is Phase.SUBMITTING and state.unsent:
        reason = f"The swarm did not take the result: {_sentence(event.sentence)}"
        drop = DropWork(lease_id=state.unsent, sentence=reason)
        return _next_task(structs.replace(state, unsent=None, attempt=0), reason, drop)
    if state.phase in _AT_WORK:
        return _abandon(
            state, f"The swarm no longer wants this segment: {_sentence(event.sentence)}"
        )
    return _retry(state, _activity_of(state), event.sentence, seed)


@_on(*_RUNNING)
def _local_trouble(state: NodeState, event: ev.LocalTrouble, seed: int) -> Step:
    """Joining again afterwards also restarts a network process that ended."""
    paused = structs.replace(state, joined=False)
    reason = f"{_sentence(event.sentence)} Paused; looking again in {_seconds(TROUBLE_RETRY_MS)}."
    return _go(paused, Phase.PAUSED, ev.Hold(delay_ms=TROUBLE_RETRY_MS), reason)


# --- pausing and leaving ------------------------------------------------------------------------


@_on(*_RUNNING)
def _pause(state: NodeState, event: ev.PauseAsked, seed: int) -> Step:
    paused = structs.replace(state, by_person=True)
    return _go(paused, Phase.PAUSED, ev.Hold(delay_ms=HOLD_MS), _sentence(event.sentence))


@_on(Phase.PAUSED)
def _resume(state: NodeState, event: ev.ResumeAsked, seed: int) -> Step:
    return _next_task(structs.replace(state, by_person=False, attempt=0), "Going on.")


@_on(Phase.PAUSED)
def _pause_over(state: NodeState, event: ev.WaitOver, seed: int) -> Step:
    if state.by_person:
        return Step(state, (ev.Hold(delay_ms=HOLD_MS),), "Paused by you; resume when you like.")
    return _next_task(structs.replace(state, attempt=0), "Trying again.")


@_on(*_RUNNING)
def _governed(state: NodeState, event: ev.Governed, seed: int) -> Step:
    """What is computed ends at once; what only talks to the swarm goes on, without the idle worker's memory."""
    told = structs.replace(state, governed=event.sentence)
    if event.sentence and state.phase in _GOVERNED:
        return _next_task(told, event.sentence)
    if not event.sentence and state.governed and state.phase is Phase.PAUSED:
        return _next_task(structs.replace(told, attempt=0), "Going on.")
    effects = (ev.EndWorker(),) if event.sentence else ()
    return Step(told, effects, _sentence(event.sentence or "the governor has no objection"))


@_on(*_RUNNING)
def _finish(state: NodeState, event: ev.FinishAsked, seed: int) -> Step:
    finishing = structs.replace(state, finishing=True)
    if state.segment or state.unsent:
        return Step(finishing, (), "Leaving once this segment is done and sent, as you asked.")
    return _leave(finishing, "Nothing is begun: leaving at once, as you asked.")


@_on(*_RUNNING)
def _stop(state: NodeState, event: ev.StopAsked, seed: int) -> Step:
    kept = " The segment is saved and goes on at the next start." if state.segment else ""
    return _leave(state, _sentence(event.sentence) + kept)


@_on(Phase.LEAVING)
def _left(state: NodeState, event: ev.Left, seed: int) -> Step:
    stopped = structs.replace(state, phase=Phase.STOPPED)
    return Step(stopped, (), _sentence(state.fault or "stopped"))


# --- words --------------------------------------------------------------------------------------


def _sentence(text: str) -> str:
    """`text` with a capital and a full stop."""
    text = text.strip() or "no reason was given"
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?…" else ".")


def _seconds(delay_ms: int) -> str:
    seconds = delay_ms / 1000
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
