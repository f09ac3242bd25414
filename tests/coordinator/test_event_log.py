"""One conformance suite for every event log, and what only a file can suffer."""

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from coordinator.small_service import service_over
from coordinator.small_swarm import SmallSwarm, rules, trained
from protocol.samples import BLOB, NODE, SWARM
from sqlalchemy import text

from kinoswarm_coordinator.database import engine_of, sqlite_url
from kinoswarm_coordinator.event_log import (
    GENESIS,
    CorruptLog,
    EventLog,
    Head,
    LogInUse,
    MemoryLog,
    NotLeader,
    chain,
    rows_after,
)
from kinoswarm_coordinator.events import Event, Founded, NodeJoined, WorkReceived
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.sql_log import SqlLog
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import (
    CONTRIBUTION,
    REPLY,
    REQUEST,
    Contribution,
    Lease,
    Receipt,
    Request,
    Submit,
)


def some_events() -> list[Event]:
    swarm = SmallSwarm()
    swarm.hello(NODE)
    swarm.train(NODE)
    swarm.operate()
    return swarm.history


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path: Path):
    made: EventLog
    if request.param == "memory":
        made = MemoryLog()
    else:
        sqlite = request.param == "sqlite"
        made = led(file_url(tmp_path) if sqlite else request.getfixturevalue("postgresql_url"))
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return file_url(tmp_path)
    found: str = request.getfixturevalue("postgresql_url")
    return found


def file_url(folder: Path) -> str:
    return sqlite_url(folder / "log.sqlite")


def led(url: str, holder: str = "first") -> SqlLog:
    log = SqlLog(url)
    claim = log.lead(holder)
    assert claim.next is not None, claim.reason
    return log


def test_a_new_log_is_empty(log: EventLog) -> None:
    assert list(log.read()) == []


def test_events_come_back_in_order(log: EventLog) -> None:
    events = some_events()
    log.append(events[:2])
    log.append([])
    log.append(events[2:])
    assert list(log.read()) == events


def test_the_head_covers_every_row(log: EventLog) -> None:
    events = some_events()
    assert log.head() == GENESIS
    log.append(events[:1])
    first = log.head()
    log.append(events[1:])
    last = log.head()
    assert (first.seq, last.seq) == (1, len(events))
    assert last.hash != first.hash


def test_every_log_gives_the_same_events_the_same_head(log: EventLog) -> None:
    events = some_events()
    log.append(events)
    expected = GENESIS
    for seq, event in enumerate(events, start=1):
        expected = Head(seq, chain(expected.hash, seq, msgspec.msgpack.encode(event)))
    assert log.head() == expected


def test_a_reopened_log_goes_on(url: str) -> None:
    events = some_events()
    first = led(url)
    first.append(events[:3])
    first.close()
    second = led(url, "second")
    second.append(events[3:])
    assert list(second.read()) == events
    assert second.epoch == 2
    second.close()


@pytest.mark.parametrize(
    "change",
    [
        "update events set body = :junk where seq = 2",
        "delete from events where seq = 2",
        "update events set hash = :junk where seq = 2",
    ],
)
def test_a_changed_row_is_found_and_named(url: str, change: str) -> None:
    log = led(url)
    log.append(some_events())
    log.close()
    engine = engine_of(url)
    with engine.begin() as connection:
        junk = {"junk": bytes(32)} if ":junk" in change else {}
        connection.execute(text(change), junk)
    engine.dispose()
    changed = SqlLog(url)
    with pytest.raises(CorruptLog, match="event 2 was changed or is missing"):
        list(changed.read())
    changed.close()


def test_a_file_that_is_no_database_says_restore(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(CorruptLog, match="restore it from a backup"):
        SqlLog(file_url(tmp_path))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("sqlite:////no/such/folder/log.sqlite", "cannot be reached"),
        ("oracle://somewhere", "is no database that can be used here"),
        ("not a url", "is no database that can be used here"),
    ],
)
def test_a_wrong_database_says_what_to_correct(wrong: str, says: str) -> None:
    with pytest.raises(LocalError, match=says):
        SqlLog(wrong)


def test_a_log_opened_for_reading_writes_nothing(url: str) -> None:
    log = SqlLog(url)
    with pytest.raises(NotLeader, match="opened for reading"):
        log.append(some_events())
    assert list(log.read()) == []
    log.close()


def test_a_second_writer_of_a_file_is_turned_away_and_a_dead_one_is_not_waited_for(
    tmp_path: Path,
) -> None:
    """Closing the lock's descriptor is what the kernel does to a process that was killed."""
    url = file_url(tmp_path)
    first, second = led(url), SqlLog(url)
    with pytest.raises(LogInUse, match="runs on this machine"):
        second.lead("second")
    assert first._lock is not None
    os.close(first._lock)
    first._lock = None
    assert second.lead("second").next is not None
    with pytest.raises(NotLeader):
        first.append(some_events())
    assert list(second.read()) == []
    first.close()
    second.append(some_events())
    second.close()


async def _appended(journal: Journal, groups: list[list[Event]]) -> None:
    await asyncio.gather(*(journal.append(group) for group in groups))


def test_a_journal_replies_only_after_the_log_has_it(log: EventLog) -> None:
    journal = Journal(log)
    founded = Founded(at_ms=1, num_clusters=2, seed_checkpoint=BLOB)
    joined = [
        NodeJoined(
            at_ms=2 + n,
            peer=NODE.peer_id,
            pseudonym=f"name {n}",
            device="cpu",
            program_version="0.1.0",
            addresses=[],
            seconds_per_step=0.0,
        )
        for n in range(20)
    ]
    asyncio.run(_appended(journal, [[founded], *([event] for event in joined)]))
    assert list(log.read()) == [founded, *joined]
    assert journal.state.nodes[NODE.peer_id].pseudonym == "name 19"
    assert Journal(log).state == journal.state


class SlowDisk(MemoryLog):
    """Writes when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.written = threading.Event(), threading.Event()

    def append(self, events: Sequence[Event]) -> None:
        self.asked.set()
        assert self.written.wait(10)
        super().append(events)


def test_nothing_is_said_of_an_event_before_it_is_on_disk_to_whoever_repeats_a_request() -> None:
    """A node that asks again while the disk is slow gets no receipt for what a power cut would still take."""
    lease, raw, log, service = submission_to_a_slow_disk()

    async def go() -> None:
        first = asyncio.create_task(service.answer(raw))
        again = asyncio.create_task(service.answer(raw))
        assert await asyncio.to_thread(log.asked.wait, 10)
        assert LeaseId(lease.lease_id) in service.journal.state.work
        answered, _ = await asyncio.wait({first, again}, timeout=0.1)
        assert not answered, "a request was answered before the disk had what it rests on"
        log.written.set()
        for raw_reply in await asyncio.gather(first, again):
            reply = open_envelope(raw_reply, REPLY, SWARM).body
            assert isinstance(reply.body, Receipt)
        assert isinstance(list(log.read())[-1], WorkReceived)

    asyncio.run(go())


def test_what_waits_for_an_event_hears_of_it_although_whoever_sent_it_has_gone() -> None:
    """A request that is given up during the write is logged all the same, and its blobs are fetched."""
    _, raw, log, service = submission_to_a_slow_disk()
    heard: list[Event] = []
    service.on_events = heard.extend

    async def go() -> None:
        asking = asyncio.create_task(service.answer(raw))
        assert await asyncio.to_thread(log.asked.wait, 10)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        log.written.set()
        await service.record([])
        assert [type(event) for event in heard] == [WorkReceived]

    asyncio.run(go())


def submission_to_a_slow_disk() -> tuple[Lease, bytes, SlowDisk, Service]:
    """A node's lease, the request that hands its work in, and the coordinator it goes to."""
    swarm, log = SmallSwarm(), SlowDisk()
    swarm.hello(NODE)
    lease = swarm.leased(NODE)
    log._rows += rows_after(GENESIS, swarm.history)
    submit = Submit(contribution=contribution_of(NODE, lease))
    raw = seal(NODE, REQUEST, SWARM, Request(request_id="1" * 32, body=submit))
    return lease, raw, log, service_over(Journal(log), rules())


def contribution_of(key: KeyPair, lease: Lease) -> bytes:
    contribution = Contribution(
        lease_id=lease.lease_id,
        node=key.peer_id,
        finished_at_ms=1_000_000,
        outcome=trained(lease),
    )
    return seal(key, CONTRIBUTION, SWARM, contribution)


class FullDisk(MemoryLog):
    """Fails from the second append on."""

    appends = 0

    def append(self, events: Sequence[Event]) -> None:
        self.appends += 1
        if self.appends > 1:
            raise OSError(28, "No space left on device")
        super().append(events)


def test_a_journal_that_could_not_write_decides_nothing_more() -> None:
    """Its state is ahead of the log: what came after would build on events that never happened."""
    founded, joined, *_ = some_events()

    async def go() -> FullDisk:
        log = FullDisk()
        journal = Journal(log)
        await journal.append([founded])
        ending = asyncio.create_task(journal.wait_failed())
        both = await asyncio.gather(
            journal.append([joined]), journal.append([joined]), return_exceptions=True
        )
        assert all(isinstance(error, OSError) for error in both)
        with pytest.raises(OSError, match="No space left"):
            await journal.append([joined])
        with pytest.raises(OSError, match="No space left"):
            await ending
        return log

    log = asyncio.run(go())
    assert log.appends == 2, "no write was tried after the first that failed"
    assert list(log.read()) == [founded]
