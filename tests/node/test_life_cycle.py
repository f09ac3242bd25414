"""The node's life as a table: every event in every phase is defined, nothing gets stuck, every reason is a sentence."""

import typing

from hypothesis import given
from hypothesis import strategies as st

from kinoswarm_node import life_events as ev
from kinoswarm_node.life_cycle import (
    BACKOFF_MAX_MS,
    MAX_FAILURES,
    MAX_PENDING,
    MAX_WORKER_DEATHS,
    PATIENT_HOLDS,
    backoff_ms,
    smaller_fit,
    step,
)
from kinoswarm_node.life_events import Fit, Segment
from kinoswarm_node.life_state import NodeState, Phase, Step
from kinoswarm_protocol.errors import Code
from kinoswarm_protocol.ids import LeaseId

NOW = 1_700_000_000_000
SEGMENT = Segment(
    lease_id=LeaseId("a" * 32),
    cluster=0,
    label="stone halls",
    base_version=3,
    steps=40,
    batch_size=4,
    deadline_ms=NOW + 60_000,
)
TEXTS = st.sampled_from(["the disk is full", "", "Nobody answered."])
LEASES = st.sampled_from([LeaseId(c * 32) for c in "abcd"])
ANY_EVENT = st.one_of(
    st.builds(ev.Started, unsent=st.none() | LEASES, pending=st.frozensets(LEASES)),
    st.builds(ev.Joined, swarm_name=st.just("Test"), tested=st.booleans()),
    st.builds(ev.LeaseGranted, segment=st.just(SEGMENT)),
    st.builds(ev.GoOn, segment=st.just(SEGMENT)),
    st.builds(ev.NoWorkGiven, sentence=TEXTS, retry_after_s=st.floats(0.001, 1e6)),
    st.builds(ev.SelfTested, seconds_per_step=st.floats(0, 1e3)),
    st.builds(ev.VerdictCame, lease_id=LEASES, accepted=st.booleans(), sentence=TEXTS),
    st.builds(ev.RefusalCame, code=st.sampled_from(Code), sentence=TEXTS),
    st.builds(ev.WorkFailed, code=st.just(Code.WORK_FAILED), sentence=TEXTS),
    *(
        st.builds(kind, sentence=TEXTS)
        for kind in (ev.Barred, ev.Withdrawn, ev.OutOfMemory, ev.WorkerDied, ev.LostTouch)
    ),
    *(st.builds(kind, sentence=TEXTS) for kind in (ev.LocalTrouble, ev.PauseAsked, ev.StopAsked)),
    *(
        st.builds(kind)
        for kind in (ev.Fetched, ev.Trained, ev.GaveUp, ev.Receipted, ev.ResumeAsked)
    ),
    st.builds(ev.WaitOver),
    st.builds(ev.Governed, sentence=TEXTS),
    st.builds(ev.FinishAsked),
    st.builds(ev.Left),
)


def run(*events: ev.Event, state: NodeState | None = None) -> Step:
    decided = Step(state or NodeState(), (), "")
    for event in events:
        decided = step(decided.state, event, NOW, 7)
    return decided


def training(**changes: object) -> NodeState:
    joined = ev.Joined(swarm_name="Test", tested=True)
    state = run(
        ev.Started(),
        joined,
        ev.LeaseGranted(segment=SEGMENT),
        ev.Fetched(),
        state=NodeState(**changes),
    ).state
    assert state.phase is Phase.TRAINING
    return state


def test_the_event_strategy_knows_every_event() -> None:
    drawn = {type(find) for find in _one_of_each()}
    assert drawn == set(typing.get_args(ev.Event))


def _one_of_each() -> list[ev.Event]:
    from hypothesis import find

    return [
        find(ANY_EVENT, lambda e, k=kind: isinstance(e, k)) for kind in typing.get_args(ev.Event)
    ]


@given(st.lists(ANY_EVENT, max_size=30), st.booleans(), st.integers(0, 2**32))
def test_whatever_happens_every_phase_but_stopped_runs_exactly_one_activity(
    events: list[ev.Event], once: bool, seed: int
) -> None:
    state, running = NodeState(once=once), False
    for event in [ev.Started(), *events]:
        before = state
        state, effects, reason = step(state, event, NOW, seed)
        activities = [e for e in effects if not isinstance(e, ev.DropWork | ev.EndWorker)]
        assert len(activities) <= 1
        running = bool(activities) or (running and state.phase is before.phase)
        assert running or state.phase in (Phase.STOPPED, Phase.STARTING)
        assert (not effects and state == before) or reason[-1] in ".!?…)"
        assert reason == "" or reason[0] == reason[0].upper()
        assert all(0 <= getattr(a, "delay_ms", 0) <= 1e9 + 1 for a in activities)


@given(st.lists(ANY_EVENT, max_size=20))
def test_a_stop_is_possible_at_any_time(events: list[ev.Event]) -> None:
    state = run(ev.Started(), *events).state
    after = run(ev.StopAsked(sentence="Ctrl-C"), ev.Left(), state=state).state
    assert after.phase is Phase.STOPPED


@given(st.lists(ANY_EVENT, max_size=20), st.integers(0, 9))
def test_a_decision_is_a_function_of_its_arguments(events: list[ev.Event], seed: int) -> None:
    state = run(ev.Started(), *events).state
    for event in events:
        assert step(state, event, NOW, seed) == step(state, event, NOW, seed)


@given(st.integers(0, 10_000), st.integers(0, 2**63))
def test_backoff_is_bounded_and_never_zero(attempt: int, seed: int) -> None:
    assert 500 <= backoff_ms(attempt, seed) <= BACKOFF_MAX_MS


def test_backoff_grows_and_spreads_nodes() -> None:
    assert backoff_ms(6, 1) > backoff_ms(0, 1)
    assert len({backoff_ms(5, seed) for seed in range(20)}) > 15


def test_a_whole_segment_goes_round_to_idle() -> None:
    state = training()
    done = run(ev.Trained(), state=state)
    assert done.state.phase is Phase.SUBMITTING
    assert done.effects == (ev.Submit(lease_id=SEGMENT.lease_id),)
    idle = run(ev.Receipted(), state=done.state)
    assert (idle.state.phase, idle.state.pending) == (Phase.IDLE, frozenset({SEGMENT.lease_id}))
    assert idle.effects == (ev.Pull(),)
    verdict = ev.VerdictCame(lease_id=SEGMENT.lease_id, accepted=True, sentence="good")
    assert run(verdict, state=idle.state).state.accepted == 1


def test_a_restart_resumes_the_open_segment_when_it_is_still_wanted() -> None:
    joined = ev.Joined(swarm_name="Test", tested=True)
    asked = run(ev.Started(open_segment=SEGMENT), joined)
    assert asked.effects == (ev.AskGoOn(segment=SEGMENT),)
    assert run(ev.GoOn(segment=SEGMENT), state=asked.state).state.phase is Phase.FETCHING
    dropped = run(ev.Withdrawn(sentence="another node did it"), state=asked.state)
    assert dropped.state.segment is None
    assert isinstance(dropped.effects[0], ev.DropWork)
    assert dropped.effects[1] == ev.Pull()


def test_a_restart_sends_the_outbox_before_anything_else() -> None:
    joined = ev.Joined(swarm_name="Test", tested=True)
    sent = run(ev.Started(unsent=LeaseId("b" * 32), open_segment=SEGMENT), joined)
    assert sent.effects == (ev.Submit(lease_id=LeaseId("b" * 32)),)


def test_running_out_of_memory_halves_the_micro_batch_then_checkpoints_then_says_so() -> None:
    state, fits = training(), []
    while True:
        state, effects, reason = step(state, ev.OutOfMemory(sentence="CUDA"), NOW, 1)
        if isinstance(effects[0], ev.GiveUp):
            break
        assert isinstance(effects[0], ev.Train)
        fits.append((effects[0].fit.micro_batch, effects[0].fit.checkpoint_activations))
    assert fits == [(2, False), (1, False), (1, True)]
    assert "does not fit" in reason
    assert "would do" in reason


def test_what_fits_is_remembered_for_the_next_segment() -> None:
    state = run(ev.OutOfMemory(sentence="x"), ev.Trained(), ev.Receipted(), state=training()).state
    fetched = run(ev.LeaseGranted(segment=SEGMENT), ev.Fetched(), state=state)
    assert fetched.effects == (ev.Train(segment=SEGMENT, fit=Fit(micro_batch=2)),)


def test_a_dead_worker_resumes_a_few_times_and_then_gives_up_honestly() -> None:
    state = training()
    for _ in range(MAX_WORKER_DEATHS):
        state, effects, reason = step(state, ev.WorkerDied(sentence="signal 9"), NOW, 1)
        assert isinstance(effects[0], ev.Train)
        assert "Resuming" in reason
    _, effects, reason = step(state, ev.WorkerDied(sentence="signal 9"), NOW, 1)
    assert isinstance(effects[0], ev.GiveUp)
    assert "signal 9" in reason


def test_three_failed_segments_in_a_row_end_the_node_with_the_reason() -> None:
    state = training()
    failed = ev.WorkFailed(code=Code.NOT_FINITE, sentence="the loss is NaN")
    for _ in range(MAX_FAILURES - 1):
        state = run(failed, ev.GaveUp(), ev.Receipted(awaits_verdict=False), state=state).state
        assert state.phase is Phase.IDLE
        state = run(ev.LeaseGranted(segment=SEGMENT), ev.Fetched(), state=state).state
    state = run(failed, ev.GaveUp(), ev.Receipted(awaits_verdict=False), state=state).state
    assert state.phase is Phase.LEAVING
    assert "NaN" in state.fault


def test_an_unreachable_coordinator_keeps_the_result_and_tries_more_and_more_rarely() -> None:
    state = run(ev.Trained(), state=training()).state
    delays = []
    for _ in range(6):
        state, effects, reason = step(state, ev.LostTouch(sentence="nobody answered"), NOW, 1)
        assert isinstance(effects[0], ev.Submit)
        assert "kept on disk" in reason
        delays.append(effects[0].delay_ms)
    assert delays[-1] > 8 * delays[0]
    assert run(ev.Receipted(), state=state).state.attempt == 0


def test_a_refused_contribution_is_dropped_with_the_swarms_sentence() -> None:
    state = run(ev.Trained(), state=training()).state
    refusal = ev.RefusalCame(code=Code.LEASE_EXPIRED, sentence="the lease expired an hour ago")
    decided = run(refusal, state=state)
    assert isinstance(decided.effects[0], ev.DropWork)
    assert "an hour ago" in decided.effects[0].sentence
    assert decided.state.phase is Phase.IDLE


def test_a_full_disk_pauses_and_looks_again_by_itself() -> None:
    paused = run(ev.LocalTrouble(sentence="no space left"), state=training())
    assert paused.state.phase is Phase.PAUSED
    assert isinstance(paused.effects[0], ev.Hold)
    again = run(ev.WaitOver(), ev.Joined(swarm_name="Test", tested=True), state=paused.state)
    assert again.effects == (ev.AskGoOn(segment=SEGMENT),)


def test_a_pause_by_a_person_lasts_until_the_person_resumes() -> None:
    paused = run(ev.PauseAsked(sentence="paused by you"), state=training())
    assert run(ev.WaitOver(), state=paused.state).state.phase is Phase.PAUSED
    assert run(ev.ResumeAsked(), state=paused.state).state.phase is Phase.RESUMING


def test_once_leaves_after_the_first_accepted_segment_only() -> None:
    state = run(ev.Trained(), ev.Receipted(), state=training(once=True)).state
    assert state.phase is Phase.WAITING_VERDICT
    rejected = ev.VerdictCame(lease_id=SEGMENT.lease_id, accepted=False, sentence="worse")
    assert run(rejected, state=state).state.phase is Phase.IDLE
    accepted = ev.VerdictCame(lease_id=SEGMENT.lease_id, accepted=True, sentence="better")
    assert run(accepted, state=state).state.phase is Phase.LEAVING


def test_too_many_unverified_results_wait_for_verdicts() -> None:
    pending = frozenset(LeaseId(f"{n:032x}") for n in range(MAX_PENDING))
    joined = ev.Joined(swarm_name="Test", tested=True)
    state = run(ev.Started(pending=pending), joined).state
    assert state.phase is Phase.WAITING_VERDICT
    verdict = ev.VerdictCame(lease_id=min(pending), accepted=True, sentence="ok")
    assert run(verdict, state=state).state.phase is Phase.IDLE


def test_verdicts_that_never_come_do_not_stop_the_node_for_good() -> None:
    pending = frozenset(LeaseId(f"{n:032x}") for n in range(MAX_PENDING))
    state = run(ev.Started(pending=pending), ev.Joined(swarm_name="Test", tested=True)).state
    for _ in range(PATIENT_HOLDS):
        state = run(ev.WaitOver(), state=state).state
        assert state.phase is Phase.WAITING_VERDICT
    assert run(ev.WaitOver(), state=state).state.phase is Phase.IDLE


def test_no_work_waits_as_long_as_the_swarm_says() -> None:
    idle = run(ev.Started(), ev.Joined(swarm_name="Test", tested=True)).state
    told = run(ev.NoWorkGiven(sentence="all clusters are full", retry_after_s=12.5), state=idle)
    assert told.effects == (ev.Pull(delay_ms=12_500),)
    assert "all clusters are full".capitalize() in told.reason


def test_a_coordinator_that_forgot_the_node_is_joined_again() -> None:
    forgot = ev.RefusalCame(code=Code.NOT_PERMITTED, sentence="say hello before asking for work")
    idle = run(ev.Started(), ev.Joined(swarm_name="Test", tested=True)).state
    assert run(forgot, state=idle).state.phase is Phase.JOINING
    resumed = run(forgot, ev.Joined(swarm_name="Test", tested=True), state=training())
    assert resumed.effects == (ev.AskGoOn(segment=SEGMENT),)


def test_an_outdated_program_leaves_and_says_why() -> None:
    joining = run(ev.Started()).state
    refusal = ev.RefusalCame(code=Code.VERSION_MISMATCH, sentence="update to 0.2")
    decided = run(refusal, state=joining)
    assert decided.state.phase is Phase.LEAVING
    assert "update to 0.2" in decided.state.fault


@given(st.integers(1, 65_536))
def test_making_it_smaller_always_ends(batch_size: int) -> None:
    fit: Fit | None = Fit()
    for _ in range(40):
        fit = smaller_fit(fit, batch_size) if fit else None
    assert fit is None


def test_a_result_that_is_stored_when_a_pause_has_just_come_is_sent_and_not_trained_again() -> None:
    paused = run(ev.Governed(sentence="Paused: a game."), state=training()).state
    assert paused.phase is Phase.PAUSED
    late = run(ev.Trained(), state=paused)
    assert (late.state.segment, late.state.unsent) == (None, SEGMENT.lease_id)
    assert late.effects == (ev.Submit(lease_id=SEGMENT.lease_id),)
    by_person = run(ev.PauseAsked(sentence="x"), ev.Trained(), state=training())
    assert by_person.state.phase is Phase.PAUSED
    resumed = run(ev.ResumeAsked(), state=by_person.state)
    assert resumed.effects == (ev.Submit(lease_id=SEGMENT.lease_id),)


def test_a_lease_that_comes_when_a_pause_has_just_come_is_begun_when_it_ends() -> None:
    idle = run(ev.Started(), ev.Joined(swarm_name="Test", tested=True)).state
    late = run(ev.Governed(sentence="Paused."), ev.LeaseGranted(segment=SEGMENT), state=idle)
    assert (late.state.phase, late.state.segment) == (Phase.PAUSED, SEGMENT)
    after = run(ev.Governed(), state=late.state)
    assert after.effects == (ev.AskGoOn(segment=SEGMENT),)


def test_a_receipt_that_comes_when_a_pause_has_just_come_counts() -> None:
    sending = run(ev.Trained(), state=training()).state
    late = run(ev.PauseAsked(sentence="x"), ev.Receipted(), state=sending)
    assert (late.state.phase, late.state.unsent) == (Phase.PAUSED, None)
    assert late.state.pending == {SEGMENT.lease_id}
