"""One conformance suite for every event log, and what only a file can suffer."""

import sqlite3
from pathlib import Path

import pytest
from coordinator.small_swarm import SmallSwarm
from protocol.samples import BLOB, NODE

from kinoswarm_coordinator.event_log import CorruptLog, EventLog, MemoryLog, SqlLog, sqlite_url
from kinoswarm_coordinator.events import Event, Founded, NodeJoined
from kinoswarm_coordinator.journal import Journal


def some_events() -> list[Event]:
    swarm = SmallSwarm()
    swarm.hello(NODE)
    swarm.train(NODE)
    swarm.operate()
    return swarm.history


@pytest.fixture(params=["memory", "sqlite"])
def log(request: pytest.FixtureRequest, tmp_path: Path):
    made: EventLog = MemoryLog() if request.param == "memory" else sqlite_log(tmp_path)
    yield made
    made.close()


def sqlite_log(folder: Path) -> SqlLog:
    return SqlLog(sqlite_url(folder / "log.sqlite"))


def test_a_new_log_is_empty(log: EventLog) -> None:
    assert list(log.read()) == []


def test_events_come_back_in_order(log: EventLog) -> None:
    events = some_events()
    log.append(events[:2])
    log.append([])
    log.append(events[2:])
    assert list(log.read()) == events


def test_a_reopened_log_goes_on(tmp_path: Path) -> None:
    events = some_events()
    first = sqlite_log(tmp_path)
    first.append(events[:3])
    first.close()
    second = sqlite_log(tmp_path)
    second.append(events[3:])
    assert list(second.read()) == events
    second.close()


@pytest.mark.parametrize(
    "change",
    [
        "update events set body = x'80' where seq = 2",
        "delete from events where seq = 2",
        "update events set hash = zeroblob(32) where seq = 2",
    ],
)
def test_a_changed_row_is_found_and_named(tmp_path: Path, change: str) -> None:
    log = sqlite_log(tmp_path)
    log.append(some_events())
    log.close()
    connection = sqlite3.connect(tmp_path / "log.sqlite")
    connection.execute(change)
    connection.commit()
    connection.close()
    changed = sqlite_log(tmp_path)
    with pytest.raises(CorruptLog, match="event 2 was changed or is missing"):
        list(changed.read())
    changed.close()


def test_a_file_that_is_no_database_says_restore(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(CorruptLog, match="restore it from a backup"):
        sqlite_log(tmp_path)


def test_an_append_that_fails_changes_nothing(tmp_path: Path) -> None:
    """The second writer loses: the row numbers are taken, and its own head did not move."""
    events = some_events()
    mine, other = sqlite_log(tmp_path), sqlite_log(tmp_path)
    other.append(events[:1])
    with pytest.raises(Exception, match="UNIQUE"):
        mine.append(events[:2])
    assert list(other.read()) == events[:1]
    mine.close()
    other.close()


async def _appended(journal: Journal, groups: list[list[Event]]) -> None:
    import asyncio

    await asyncio.gather(*(journal.append(group) for group in groups))


def test_a_journal_replies_only_after_the_log_has_it(log: EventLog) -> None:
    import asyncio

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
