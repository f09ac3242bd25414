"""A laptop's life: it sleeps, its clock jumps, it changes networks, its disk fills up or can't be written."""

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from node.scripted import NOW_MS, World
from node.test_daemon import LEASE_0, _no_waiting, live  # noqa: F401 (an autouse fixture)

from kinoswarm_model.jobs import JobProgress
from kinoswarm_node import joining, keeping
from kinoswarm_node import life_events as ev
from kinoswarm_node.context import NodeContext
from kinoswarm_node.daemon import Daemon
from kinoswarm_node.life_events import Segment
from kinoswarm_node.life_state import NodeState
from kinoswarm_node.node_status import read_status
from kinoswarm_node.swarm_folder import SwarmFolder
from kinoswarm_protocol.errors import Code
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.messages import Hello, Progress, Refusal

NIGHT_MS = 9 * 3_600_000


def test_after_a_night_asleep_a_segment_whose_lease_ran_out_is_given_up_with_the_reason(
    tmp_path: Path,
) -> None:
    expired = Refusal(code=Code.LEASE_EXPIRED.value, sentence="the lease ran out while you slept")
    world = World(tmp_path, block_training=True, refuse={Progress: expired})
    node = world.node()
    woken = [NOW_MS]
    node.now_ms = lambda: woken[0]
    daemon = Daemon(node)

    def listen(news: Any) -> None:
        if news.reason.startswith("Training on"):
            woken[0] += NIGHT_MS
        if "ran out while you slept" in news.reason:
            daemon.post(joining.ev.StopAsked(sentence="stop"))

    node.board._listener = listen
    live(daemon)
    assert [line.state for line in node.folder.history()] == ["dropped"]


def test_a_node_that_slept_while_it_had_a_result_sends_it_after_waking(tmp_path: Path) -> None:
    world = World(tmp_path)
    node = world.node()
    clock = iter(range(NOW_MS, NOW_MS + 10_000 * NIGHT_MS, NIGHT_MS))
    node.now_ms = lambda: next(clock)
    assert live(Daemon(node, once=True)).accepted == 1


def trained(node: NodeContext, step: int) -> None:
    node.board.trained(
        JobProgress(job_id="j", step=step, total=90, loss=0.5, what="training", saved_step=0)
    )


def test_a_clock_that_was_set_back_stops_neither_the_status_nor_the_greetings(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    node = world.node()
    now = [NOW_MS]
    node.now_ms = node.board._now_ms = lambda: now[0]
    segment = Segment(
        lease_id=LeaseId(LEASE_0),
        cluster=0,
        label="halls",
        base_version=0,
        steps=90,
        batch_size=4,
        deadline_ms=NOW_MS + NIGHT_MS,
    )
    state = structs.replace(NodeState(), segment=segment)
    node.board.state_changed(state, "Training on 'halls'.", node.folder, lasting=True)
    trained(node, 10)
    asyncio.run(joining.join(node))
    now[0] -= 30 * 86_400_000
    trained(node, 20)
    found = read_status(node.settings.home / "status.json")
    assert found.segment is not None
    assert found.segment.step == 20
    assert found.segment.steps_per_s is None, "no speed is made up from a jump"
    greeted = len([body for body in world.bodies if isinstance(body, Hello)])
    asyncio.run(joining.greet_again(node))
    assert len([body for body in world.bodies if isinstance(body, Hello)]) == greeted + 1


def test_another_network_is_told_to_the_swarm(tmp_path: Path) -> None:
    world = World(tmp_path)
    node = world.node()
    world.addresses = ["/ip4/192.0.2.1/tcp/4001"]
    asyncio.run(joining.join(node))
    world.addresses = ["/ip4/198.51.100.9/tcp/4001"]
    node.greeted_at_ms -= joining.GREET_EVERY_MS
    asyncio.run(joining.greet_again(node))
    told = [list(body.addresses) for body in world.bodies if isinstance(body, Hello)]
    assert told == [["/ip4/192.0.2.1/tcp/4001"], ["/ip4/198.51.100.9/tcp/4001"]]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "can't be written (Read-only file system)"),
        (errno.EIO, "can't be written (Input/output error)"),
        (errno.ENOSPC, "no space left on the disk"),
    ],
)
@pytest.mark.parametrize("method", ["work_dir", "keep_lease", "keep_contribution", "mark_sent"])
def test_a_disk_that_fails_at_any_step_pauses_the_node_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, number: int, words: str
) -> None:
    plain = getattr(SwarmFolder, method)
    faults: Iterator[OSError] = iter([OSError(number, os.strerror(number), str(tmp_path))] * 2)

    def failing(self: SwarmFolder, *given: Any) -> Any:
        for fault in faults:
            raise fault
        return plain(self, *given)

    monkeypatch.setattr(SwarmFolder, method, failing)
    world = World(tmp_path)
    state = live(Daemon(world.node(), once=True))
    assert state.accepted == 1, "the work is not lost"
    assert sum(words.lower() in reason.lower() for reason in world.reasons) >= 1


def test_a_verdict_that_a_full_disk_can_not_note_is_heard_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = SwarmFolder.close
    faults = iter([OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))] * 2)

    def failing(self: SwarmFolder, *given: Any) -> None:
        for fault in faults:
            raise fault
        plain(self, *given)

    monkeypatch.setattr(SwarmFolder, "close", failing)
    node = World(tmp_path).node()
    assert live(Daemon(node, once=True)).accepted == 1
    assert [line.state for line in node.folder.history()] == ["accepted"]
    assert next(faults, None) is None


def test_an_amendment_that_a_full_disk_can_not_keep_does_not_end_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(World(tmp_path).node())

    async def failing(node: NodeContext) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    monkeypatch.setattr(joining, "greet_again", failing)
    asyncio.run(daemon._stay_in_touch())
    assert daemon.error is None


def test_an_error_of_the_system_that_is_no_disks_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: SwarmFolder, *given: Any) -> Any:
        raise OSError(errno.ENOTSOCK, "not a socket")

    monkeypatch.setattr(SwarmFolder, "work_dir", failing)
    with pytest.raises(OSError, match="not a socket"):
        live(Daemon(World(tmp_path).node()))


def test_a_pause_ends_also_on_a_disk_that_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = World(tmp_path).node()
    node.wishes.pause(NOW_MS + 10)

    def read_only(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "unlink", read_only)
    assert node.wishes.paused(NOW_MS + 9) is not None
    assert node.wishes.paused(NOW_MS + 10) is None


def test_a_node_waits_out_a_day_without_network_and_loses_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, fail_asks=[Hello] * 20)
    assert live(Daemon(world.node(), once=True)).accepted == 1
    assert any("try 20" in reason for reason in world.reasons)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_pause_that_can_not_be_read_is_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As after `sudo kinoswarm pause`: the file belongs to root, and only root may read it."""
    node = World(tmp_path).node()
    node.wishes.pause(NOW_MS + 10)

    def unreadable(self: Path) -> bytes:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "read_bytes", unreadable)
    pause = node.wishes.paused(NOW_MS + 20)
    assert pause is not None, "its end can't be known, so it lasts"
    assert "`kinoswarm resume` removes it" in pause.sentence()
    asked = node.wishes.wants_to_leave()
    assert asked == (ev.FinishAsked() if number == errno.EACCES else None)


def test_a_release_that_can_not_be_kept_on_a_failing_disk_does_not_end_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    async def failing(node: NodeContext) -> None:
        tried.append(1)
        raise OSError(errno.EIO, os.strerror(errno.EIO), "a blob")

    monkeypatch.setattr(keeping, "keep_alive", failing)
    assert live(Daemon(World(tmp_path).node(), once=True)).accepted == 1
    assert tried
