"""The daemon against a scripted coordinator: a whole life, and every fault of the table in ARCHITECTURE.md."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from node.scripted import (
    CALM,
    NOW_MS,
    FakeNetwork,
    FakeTrainer,
    World,
    out_of_memory,
    worker_death,
)
from protocol.samples import NODE, charter

from kinoswarm_model.jobs import FULL, SelfTestJob, TrainJob
from kinoswarm_model.supervisor import WorkerError
from kinoswarm_node import life_events as ev
from kinoswarm_node import sending
from kinoswarm_node.daemon import IDLE_WORKER_MS, Daemon
from kinoswarm_node.governor.readings import GpuReading
from kinoswarm_node.home import Home
from kinoswarm_node.life_events import Fit
from kinoswarm_node.life_state import NodeState, Phase
from kinoswarm_node.node_status import read_status
from kinoswarm_node.status_board import News
from kinoswarm_node.swarm_folder import SwarmFolder
from kinoswarm_node.wishes import WishFiles
from kinoswarm_protocol.errors import Code, LocalError, Unreachable
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import (
    FailedOutcome,
    Hello,
    PullLease,
    Refusal,
    Submit,
    TrainOutcome,
)
from kinoswarm_protocol.specs import ModeSpec, Objective

LEASE_0 = f"{0:032x}"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's sleep returns at once, except for the hour that "no work" asks for."""
    real = asyncio.sleep

    async def at_once(seconds: float, result: object = None) -> None:
        await real(3600.0 if seconds >= 1800.0 else 0.0)

    monkeypatch.setattr(asyncio, "sleep", at_once)
    monkeypatch.setattr(sending, "FIRST_LOOK_S", 0.0)


def live(daemon: Daemon) -> NodeState:
    async def bounded() -> NodeState:
        async with asyncio.timeout(20):
            return await daemon.run()

    return asyncio.run(bounded())


def live_until(daemon: Daemon, world: World, text: str) -> NodeState:
    """Run until a reason contains `text`, then stop as by Ctrl-C."""

    def listen(news: Any) -> None:
        world.news.append(news)
        if text in (news.reason or f"progress of {news.what}"):
            daemon.post(ev.StopAsked(sentence="stop"))

    daemon.node.board._listener = listen
    return live(daemon)


def test_a_node_joins_trains_one_segment_and_leaves_when_it_is_accepted(tmp_path: Path) -> None:
    world = World(tmp_path)
    node = world.node()
    state = live(Daemon(node, once=True))
    assert (state.phase, state.accepted, state.fault) == (Phase.STOPPED, 1, "")
    assert isinstance(world.contributions[LEASE_0].outcome, TrainOutcome)
    assert [line.state for line in node.folder.history()] == ["accepted"]
    assert node.folder.open_leases() == node.folder.unsent_ids() == node.folder.pending_ids() == []
    assert not list((node.folder.root / "work").iterdir())
    assert world.reasons[0] == "Looking for the swarm."
    assert any("Accepted: The held-out loss went down." in reason for reason in world.reasons)


def test_everything_is_ended_on_the_way_out(tmp_path: Path) -> None:
    world = World(tmp_path)
    node = world.node()
    live(Daemon(node, once=True))
    assert not node.network.started
    assert node.trainer.stopped


def test_the_status_file_says_what_became_of_the_segment(tmp_path: Path) -> None:
    world = World(tmp_path)
    live(Daemon(world.node(), once=True))
    status = read_status(tmp_path / "home" / "status.json")
    assert (status.state, status.accepted, status.rejected) == ("stopped", 1, 0)
    assert status.last_verdict == "the held-out loss went down"


def test_where_a_node_listens_is_in_its_status_before_the_dht_has_it(tmp_path: Path) -> None:
    async def away(*what: object) -> None:
        raise Unreachable("the DHT is away")

    world = World(tmp_path)
    world.addresses = [f"/ip4/192.0.2.7/tcp/4001/p2p/{NODE.peer_id}"]
    node = world.node()
    node.network.announce = away  # type: ignore[method-assign]
    live(Daemon(node, once=True))
    training = next(news for news in world.news if news.status.state == "training")
    assert training.status.addresses == world.addresses


def test_a_worker_that_has_nothing_to_do_gives_its_memory_back(tmp_path: Path) -> None:
    world = World(tmp_path, num_leases=0)
    node = world.node()
    stopped_when: list[bool] = []
    daemon = Daemon(node)

    def listen(news: News) -> None:
        if "Asking again in 3600 s" in news.reason:
            asyncio.get_running_loop().call_later(0.05, daemon.post, stop)
        if "Stop" in news.reason:
            stopped_when.append(isinstance(node.trainer, FakeTrainer) and node.trainer.stopped)

    stop = ev.StopAsked(sentence="stop")
    node.board._listener = listen
    live(daemon)
    assert stopped_when[0]


def test_a_worker_outlives_a_short_wait_for_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, quick = World(tmp_path).node(), asyncio.sleep
    was_ended: list[bool] = []

    async def watched(seconds: float, result: object = None) -> None:
        if seconds == IDLE_WORKER_MS / 1000:
            was_ended.append(node.trainer.stopped)  # type: ignore[attr-defined]
        await quick(seconds)

    monkeypatch.setattr(asyncio, "sleep", watched)
    live(Daemon(node, once=True))
    assert was_ended
    assert not was_ended[0]


@pytest.mark.parametrize("objective", ["velocity", "epsilon"])
def test_a_segment_trains_what_the_charter_says_of_its_cluster(
    tmp_path: Path, objective: Objective
) -> None:
    world = World(tmp_path)
    clusters = [structs.replace(world.charter.clusters[0], objective=objective)]
    world = World(tmp_path, charter_changes={"clusters": clusters})
    live(Daemon(world.node(), once=True))
    (job,) = (job for job in world.jobs if isinstance(job, TrainJob))
    assert job.objective == objective


def test_the_self_test_is_remembered(tmp_path: Path) -> None:
    world = World(tmp_path, num_leases=2)
    live(Daemon(world.node(), once=True))
    live(Daemon(world.node(), once=True))
    assert sum(isinstance(job, SelfTestJob) for job in world.jobs) == 1
    pulls = [body for body in world.bodies if isinstance(body, PullLease)]
    assert {pull.seconds_per_step for pull in pulls} == {0.5}


def test_a_rejected_segment_is_told_with_its_reason(tmp_path: Path) -> None:
    world = World(tmp_path, verdict="rejected")
    node = world.node()
    state = live_until(Daemon(node), world, "Not accepted: It got worse.")
    assert state.rejected == 1
    assert [line.sentence for line in node.folder.history()] == ["it got worse"]


def test_no_work_says_why(tmp_path: Path) -> None:
    world = World(tmp_path, num_leases=0)
    live_until(Daemon(world.node()), world, "Every cluster is trained.")
    assert any("Asking again in 3600 s" in reason for reason in world.reasons)


def test_a_lost_reply_to_a_pull_gets_the_same_lease_again(tmp_path: Path) -> None:
    world = World(tmp_path, num_leases=1, lose_replies=[PullLease])
    state = live(Daemon(world.node(), once=True))
    assert state.accepted == 1
    assert len(world.leases_by_request) == 1


def test_a_coordinator_that_is_away_at_first_is_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path, fail_asks=[Hello, Hello, Hello])
    state = live(Daemon(world.node(), once=True))
    assert state.accepted == 1
    assert any("no coordinator" in r.lower() and "try 4" in r for r in world.reasons)


def test_a_result_is_kept_and_sent_later_when_the_coordinator_is_away(tmp_path: Path) -> None:
    world = World(tmp_path, fail_asks=[Submit, Submit])
    state = live(Daemon(world.node(), once=True))
    assert state.accepted == 1
    assert any("kept on disk" in reason for reason in world.reasons)


def test_a_result_survives_the_end_of_the_program(tmp_path: Path) -> None:
    world = World(tmp_path, fail_asks=[Submit] * 99)
    node = world.node()
    live_until(Daemon(node), world, "kept on disk")
    assert node.folder.unsent_ids() == [LEASE_0]
    world.fail_asks.clear()
    state = live(Daemon(world.node(), once=True))
    assert state.accepted == 1
    assert sum(isinstance(job, TrainJob) for job in world.jobs) == 1


def test_a_segment_is_resumed_after_the_end_of_the_program(tmp_path: Path) -> None:
    world = World(tmp_path, block_training=True)
    node = world.node()
    live_until(Daemon(node), world, "Training on")
    assert [opened.body.lease_id for opened in node.folder.open_leases()] == [LEASE_0]
    world.block_training = False
    state = live(Daemon(world.node(), once=True))
    assert state.accepted == 1
    assert any("still wanted" in reason for reason in world.reasons)
    dirs = [job.work_dir for job in world.jobs if isinstance(job, TrainJob)]
    assert len(set(dirs)) == 1
    assert dirs[0].endswith(LEASE_0)


def test_a_segment_that_is_not_wanted_any_more_is_dropped_at_the_next_start(tmp_path: Path) -> None:
    world = World(tmp_path, block_training=True)
    live_until(Daemon(world.node()), world, "Training on")
    world.go_on, world.block_training = False, False
    node = world.node()
    live_until(Daemon(node), world, "Another node was faster.")
    assert [line.state for line in node.folder.history()] == ["dropped"]
    assert node.folder.open_leases() == []


def test_training_stops_when_the_coordinator_no_longer_wants_it(tmp_path: Path) -> None:
    world = World(tmp_path, block_training=True, go_on=False)
    node = world.node()
    live_until(Daemon(node), world, "The segment was dropped.")
    assert [line.state for line in node.folder.history()] == ["dropped"]


def test_memory_errors_shrink_the_micro_batch_until_it_fits(tmp_path: Path) -> None:
    world = World(tmp_path, worker_faults=[out_of_memory(), out_of_memory(), out_of_memory()])
    state = live(Daemon(world.node(), once=True))
    assert state.accepted == 1
    fits = [
        (job.micro_batch, job.checkpoint_activations)
        for job in world.jobs
        if isinstance(job, TrainJob)
    ]
    assert fits == [(4, False), (2, False), (1, False), (1, True)]


def test_what_does_not_fit_at_all_is_told_to_the_swarm(tmp_path: Path) -> None:
    world = World(tmp_path, worker_faults=[out_of_memory() for _ in range(4)])
    node = world.node()
    live_until(Daemon(node), world, "The swarm knows")
    outcome = world.contributions[LEASE_0].outcome
    assert isinstance(outcome, FailedOutcome)
    assert "does not fit" in outcome.sentence
    assert [line.state for line in node.folder.history()] == ["failed"]


def test_a_mode_that_does_not_fit_is_not_proposed_again(tmp_path: Path) -> None:
    modes = [FULL, ModeSpec(name="adam8bit"), ModeSpec(name="lora", rank=16)]
    model = structs.replace(charter().model, modes=modes)
    world = World(
        tmp_path,
        worker_faults=[out_of_memory() for _ in range(4)],
        charter_changes={"model": model},
    )
    node = world.node()
    live_until(Daemon(node), world, "The swarm knows")
    assert node.self_test is not None
    assert node.self_test.modes == modes[1:]
    assert "full would not fit" in node.board.status.fit
    assert node.folder.self_test("auto", node.self_test.threads) == node.self_test


def test_a_dead_worker_is_restarted_and_resumes(tmp_path: Path) -> None:
    world = World(tmp_path, worker_faults=[worker_death(), worker_death()])
    state = live(Daemon(world.node(), once=True))
    assert state.accepted == 1
    assert any("Resuming where it stopped (2 of 3)" in reason for reason in world.reasons)


def test_a_worker_that_refuses_is_believed(tmp_path: Path) -> None:
    refusal = WorkerError(Code.NOT_FINITE.value, "the loss became NaN at step 3", False)
    world = World(tmp_path, worker_faults=[refusal])
    live_until(Daemon(world.node()), world, "The swarm knows")
    outcome = world.contributions[LEASE_0].outcome
    assert isinstance(outcome, FailedOutcome)
    assert (outcome.code, outcome.sentence) == ("not_finite", "the loss became NaN at step 3")


def test_a_download_that_breaks_is_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path, fetch_faults=[Unreachable("3 of 7 chunks came, then nobody served it")])
    state = live(Daemon(world.node(), once=True))
    assert state.accepted == 1
    assert any("then nobody served it" in reason for reason in world.reasons)


def test_a_full_disk_pauses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    full = LocalError("the disk is full: 9 bytes were needed at blobs; free some space")
    world = World(tmp_path, fetch_faults=[full])
    state = live(Daemon(world.node(), once=True))
    assert state.accepted == 1
    assert any(r.startswith("The disk is full") and "Paused" in r for r in world.reasons)


def test_the_disk_is_looked_at_before_it_is_full(tmp_path: Path) -> None:
    world = World(tmp_path)
    node = world.node()
    node.settings = node.settings.model_copy(update={"keep_free_gib": 1e6})
    live_until(Daemon(node), world, "keep_free_gib = 1e+06 must stay free")
    assert any("free some space" in reason for reason in world.reasons)


def test_a_tampered_charter_bars_the_node(tmp_path: Path) -> None:
    world = World(tmp_path, tamper_charter=True)
    daemon = Daemon(world.node())
    state = live(daemon)
    assert "it was altered or belongs to another swarm" in state.fault
    assert "ask for a fresh invite" in str(daemon.error)


def test_an_outdated_program_is_told_to_update(tmp_path: Path) -> None:
    world = World(tmp_path, charter_changes={"min_version": "99.0"})
    state = live(Daemon(world.node()))
    assert "needs version 99.0 or newer" in state.fault
    assert "pip install --upgrade kinoswarm" in state.fault


def test_a_barred_node_leaves_with_the_swarms_sentence(tmp_path: Path) -> None:
    barred = Refusal(code=Code.NOT_PERMITTED.value, sentence="this node was banned on Monday")
    world = World(tmp_path, refuse={Hello: barred})
    assert "banned on Monday" in live(Daemon(world.node())).fault


def test_replies_of_somebody_else_are_not_believed(tmp_path: Path) -> None:
    world = World(tmp_path, signer=KeyPair(bytes(range(9, 41))))
    live_until(Daemon(world.node()), world, "which is no coordinator")
    assert not any("Joined" in reason for reason in world.reasons)


def test_licences_other_than_those_agreed_to_bar_the_node(tmp_path: Path) -> None:
    world = World(tmp_path)
    node = world.node()
    consent = node.folder.consent()
    assert consent is not None
    consent.licences["data"] = "something else"
    node.folder.keep_consent(consent)
    assert "not those of the invite" in live(Daemon(node)).fault


def test_three_segments_that_fail_in_a_row_end_the_node(tmp_path: Path) -> None:
    refusals = [WorkerError("work_failed", "the card fell off the bus", False) for _ in range(3)]
    world = World(tmp_path, worker_faults=list(refusals), num_leases=9)
    state = live(Daemon(world.node()))
    assert "3 segments in a row failed" in state.fault
    assert "fell off the bus" in state.fault


def test_stopping_keeps_the_open_segment(tmp_path: Path) -> None:
    world = World(tmp_path, block_training=True)
    node = world.node()
    live_until(Daemon(node), world, "progress of training")
    assert any("goes on at the next start" in reason for reason in world.reasons)
    folder = SwarmFolder(node.folder.root, world.swarm)
    assert (folder.root / "work" / LEASE_0 / "resume").read_text() == "4"


def test_the_progress_of_training_is_in_the_status(tmp_path: Path) -> None:
    world = World(tmp_path)
    live(Daemon(world.node(), once=True))
    shown = [n.status.segment for n in world.news if n.what == "training"]
    assert shown
    assert shown[-1] is not None
    assert (shown[-1].step, shown[-1].total, shown[-1].loss) == (4, 8, 0.5)


def test_a_person_pauses_and_resumes_from_another_terminal(tmp_path: Path) -> None:
    world = World(tmp_path, block_training=True)
    node = world.node()
    daemon = Daemon(node, once=True)
    home = Home(tmp_path / "home")

    def listen(news: News) -> None:
        world.news.append(news)
        if news.what == "training" and world.block_training:
            world.block_training = False
            WishFiles(home.root).pause()
        if "Paused by you" in news.reason:
            assert WishFiles(home.root).resume()

    node.board._listener = listen
    state = live(daemon)
    assert state.accepted == 1
    assert sum(isinstance(job, TrainJob) for job in world.jobs) == 2
    assert any("Going on." in reason for reason in world.reasons)


def test_a_pause_holds_over_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    node = world.node()
    WishFiles(tmp_path / "home").pause()
    live_until(Daemon(node), world, "Paused by you")
    assert not world.bodies or not any(isinstance(b, PullLease) for b in world.bodies)


def test_pausing_where_no_node_is_says_so(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="there is no node in"):
        WishFiles(tmp_path / "nowhere").pause()


def test_a_damaged_pull_id_is_drawn_anew(tmp_path: Path) -> None:
    world = World(tmp_path)
    node = world.node()
    node.folder.keep_text("pull.id", b"z" * 32)
    assert live(Daemon(node, once=True)).accepted == 1


def test_a_verdict_in_between_is_told_but_is_not_why_the_node_does_what_it_does(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    node = world.node()
    daemon = Daemon(node)
    told: list[News] = []

    def listen(news: News) -> None:
        told.append(news)
        if "Asking again" in news.reason:
            verdict = ev.VerdictCame(lease_id=LeaseId("f" * 32), accepted=True, sentence="good")
            daemon.post(verdict)
        if news.reason == "Accepted: Good.":
            daemon.post(ev.StopAsked(sentence="stop"))

    node.board._listener = listen
    live(daemon)
    verdict_news = next(news for news in told if news.reason == "Accepted: Good.")
    assert "Asking again" in verdict_news.status.reason


def test_a_bug_ends_the_node_but_leaves_no_process_behind(tmp_path: Path) -> None:
    world = World(tmp_path, fetch_faults=[ZeroDivisionError("a bug of ours")])
    node = world.node()
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        live(Daemon(node))
    assert isinstance(node.network, FakeNetwork)
    assert isinstance(node.trainer, FakeTrainer)
    assert not node.network.started
    assert node.trainer.stopped


# --- the governor -------------------------------------------------------------------------------


def test_a_cause_ends_the_worker_and_its_end_resumes_the_same_segment(tmp_path: Path) -> None:
    world = World(tmp_path, block_training=True)
    node = world.node()
    daemon = Daemon(node, once=True)

    def listen(news: News) -> None:
        world.news.append(news)
        if news.what == "training" and world.block_training:
            world.block_training = False
            world.sensors.reading = structs.replace(CALM, on_battery=True, battery_percent=64.0)
        if "battery (64 %)" in news.reason:
            world.sensors.reading = CALM
            world.monotonic_ms += 120_000

    node.board._listener = listen
    assert live(daemon).accepted == 1
    jobs = [job for job in world.jobs if isinstance(job, TrainJob)]
    assert [job.job_id for job in jobs] == [LEASE_0, LEASE_0]
    assert node.trainer.stopped
    assert any("The segment from before is still wanted" in reason for reason in world.reasons)


def test_on_battery_a_node_joins_but_computes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.sensors.reading = structs.replace(CALM, on_battery=True)
    daemon = Daemon(world.node())

    def listen(news: News) -> None:
        if news.status.state == "paused":
            daemon.post(ev.StopAsked(sentence="stop"))

    daemon.node.board._listener = listen
    state = live(daemon)
    assert state.joined
    assert world.jobs == []
    assert any(isinstance(body, Hello) for body in world.bodies)


def test_heat_slows_the_worker_down_and_the_status_says_so(tmp_path: Path) -> None:
    world = World(tmp_path)
    hot = GpuReading(name="Test GPU", temperature_c=88.0)
    world.sensors.reading = structs.replace(CALM, gpu=hot)
    node = world.node()
    live(Daemon(node, once=True))
    assert node.trainer.share == 0.75
    status = read_status(tmp_path / "home" / "status.json")
    assert status.governor is not None
    assert (status.governor.allowance, status.governor.share) == ("throttle", 0.75)
    assert status.governor.sees["temperature"] == "88 °C"


def test_a_power_limit_holds_while_the_node_runs_and_is_said(tmp_path: Path) -> None:
    world = World(tmp_path)
    live(Daemon(world.node(power_limit_w=200), once=True))
    assert world.sensors.watts == [200, 0]
    assert "the card's power limit is 200 W" in read_status(tmp_path / "home/status.json").confined


# --- leaving and going --------------------------------------------------------------------------


def test_leave_after_finishing_sends_the_segment_first(tmp_path: Path) -> None:
    world = World(tmp_path, num_leases=5)
    node = world.node()

    def listen(news: News) -> None:
        world.news.append(news)
        if news.what == "training":
            node.wishes.finish()

    node.board._listener = listen
    state = live(Daemon(node))
    assert (state.phase, len(world.contributions)) == (Phase.STOPPED, len(world.leases_by_request))
    assert any("Nothing is left to finish" in reason for reason in world.reasons)
    again = World(tmp_path)
    assert live(Daemon(again.node(), once=True)).fault == "", "a new start is a new wish"


def test_a_pause_with_an_end_ends(tmp_path: Path) -> None:
    world = World(tmp_path)
    node = world.node()
    WishFiles(tmp_path / "home").pause(until_ms=NOW_MS + 1)
    clock = [NOW_MS]
    node.now_ms = lambda: clock[0]

    def listen(news: News) -> None:
        world.news.append(news)
        if "for a while" in news.reason:
            clock[0] += 2

    node.board._listener = listen
    assert live(Daemon(node, once=True)).accepted == 1
    assert any("Paused by you for a while" in reason for reason in world.reasons)


def test_nothing_is_computed_before_the_volunteer_says_go(tmp_path: Path) -> None:
    world = World(tmp_path)
    node = world.node()
    node.wishes.await_go()
    live_until(Daemon(node), world, "before you say go")
    assert world.jobs == []
    assert not node.wishes.said_go()
    assert node.wishes.resume()
    assert node.wishes.said_go()
    assert live(Daemon(node, once=True)).accepted == 1


@pytest.mark.parametrize("raw", [b"", b"{", b'{"kind": "other"}', b"\xff" * 9000])
def test_a_damaged_pause_file_still_pauses(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "paused").write_bytes(raw)
    pause = WishFiles(tmp_path).paused(0)
    assert pause is not None
    assert pause.kind == "person"


# --- days later ---------------------------------------------------------------------------------


@pytest.mark.parametrize("still_valid", [True, False])
def test_a_result_that_waited_for_days_is_sent_if_it_is_still_valid(
    tmp_path: Path, still_valid: bool
) -> None:
    """Killed between the end of the training and the receipt; the machine stays off for four days."""
    world = World(tmp_path, fail_asks=[Submit])
    live_until(Daemon(world.node()), world, "Your result is kept on disk")
    later = World(tmp_path)
    later.contributions, later.leases_by_request = world.contributions, world.leases_by_request
    if not still_valid:
        gone = Refusal(code=Code.LEASE_EXPIRED.value, sentence="the lease expired 4 days ago")
        later.refuse = {Submit: gone}
    node = later.node()
    node.now_ms = lambda: NOW_MS + 4 * 86_400_000
    words = "Accepted" if still_valid else "the lease expired 4 days ago"
    live_until(Daemon(node), later, words[1:])
    line = next(iter(node.folder.history()))
    assert line.state == ("accepted" if still_valid else "dropped")
    assert node.folder.unsent_ids() == []


# --- what fits ----------------------------------------------------------------------------------


def test_what_a_segment_had_to_do_with_less_memory_is_remembered_over_a_restart(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, num_leases=2)
    world.trained_with = Fit(micro_batch=1, checkpoint_activations=True)
    live(Daemon(world.node(), once=True))
    live(Daemon(world.node(), once=True))
    first, second = (job for job in world.jobs if isinstance(job, TrainJob))
    assert (first.micro_batch, first.checkpoint_activations) == (4, False), "as the self-test found"
    assert (second.micro_batch, second.checkpoint_activations) == (1, True)


def test_the_volunteers_own_micro_batch_wins(tmp_path: Path) -> None:
    world = World(tmp_path)
    live(Daemon(world.node(micro_batch=3), once=True))
    assert [job.micro_batch for job in world.jobs if isinstance(job, TrainJob)] == [3]


def test_a_result_that_is_sent_already_is_not_dropped_when_its_receipt_was_not_noticed(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    node = world.node()
    live_until(Daemon(node), world, "The segment is done")
    lease_id = LeaseId(LEASE_0)
    node.folder.mark_sent(lease_id)
    found = asyncio.run(sending.submit(node, lease_id, lambda event: None))
    assert found == ev.Receipted()
    assert node.folder.pending_ids() == [lease_id]


def test_a_pause_in_the_moment_of_the_hand_over_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    node = world.node()
    daemon, keep = Daemon(node, once=True), node.folder.keep_contribution

    def pause_meanwhile(lease_id: LeaseId, raw: bytes) -> None:
        keep(lease_id, raw)
        daemon.post(ev.PauseAsked(sentence="a pause"))

    def listen(news: News) -> None:
        if news.reason == "A pause.":
            asyncio.get_running_loop().call_later(0.05, daemon.post, ev.ResumeAsked())

    monkeypatch.setattr(node.folder, "keep_contribution", pause_meanwhile)
    node.board._listener = listen
    assert live(daemon).accepted == 1
    assert len([job for job in world.jobs if isinstance(job, TrainJob)]) == 1


def test_a_game_has_the_card_also_while_a_result_is_being_sent(tmp_path: Path) -> None:
    """The worker is idle then, and torch still holds the memory of its last segment."""
    world = World(tmp_path)
    node = world.node()
    daemon, delivered, ended = Daemon(node, once=True), asyncio.Event(), []

    async def slow_upload(lease_id: LeaseId, blob: object) -> None:
        world.sensors.reading = structs.replace(CALM, fullscreen=True)
        await delivered.wait()

    async def stop() -> None:
        ended.append(daemon.state.phase)
        delivered.set()
        world.sensors.reading = CALM
        world.monotonic_ms += 120_000

    world.deliver = slow_upload  # type: ignore[method-assign]
    node.trainer.stop = stop  # type: ignore[method-assign]
    assert live(daemon).accepted == 1
    assert ended[0] is Phase.SUBMITTING


def test_nothing_of_a_segment_stays_in_memory_once_it_is_judged(tmp_path: Path) -> None:
    for verdict in ("accepted", "rejected"):
        world = World(tmp_path / verdict, num_leases=3, verdict=verdict)
        (tmp_path / verdict).mkdir()
        node = world.node()
        live_until(Daemon(node), world, "Asking again in 3600 s")
        assert len(world.contributions) == 3
        assert (node.hints, node.steps) == ({}, {})
    failing = World(tmp_path, worker_faults=[WorkerError("work_failed", "no", False)])
    node = failing.node()
    live_until(Daemon(node), failing, "Asking again in 3600 s")
    assert (node.hints, node.steps) == ({}, {})


@pytest.mark.parametrize("refused", [False, True])
def test_what_became_of_a_segment_is_told_also_when_the_network_process_just_ended(
    tmp_path: Path, refused: bool
) -> None:
    gone = Refusal(code=Code.LEASE_EXPIRED.value, sentence="too late")
    world = World(tmp_path, refuse={Submit: gone} if refused else {})
    node = world.node()

    async def unpin(blob: object) -> None:
        raise Unreachable("the network process ended")

    node.network.unpin = unpin  # type: ignore[method-assign]
    state = live_until(Daemon(node), world, "did not take" if refused else "Accepted")
    assert [line.state for line in node.folder.history()] == ["dropped" if refused else "accepted"]
    assert (state.pending, state.accepted) == (frozenset(), 0 if refused else 1)
