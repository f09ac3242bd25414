"""Signed heads: what the coordinator said of its log holds the log to it."""

import asyncio
from pathlib import Path

import httpx
import pytest
from coordinator.small_swarm import SmallSwarm
from protocol.samples import COORDINATOR, NODE, SWARM
from web.served import sources

from kinoswarm_coordinator.database import sqlite_url
from kinoswarm_coordinator.event_log import GENESIS as EMPTY
from kinoswarm_coordinator.event_log import CorruptLog, rows_after
from kinoswarm_coordinator.events import Event
from kinoswarm_coordinator.log_heads import HeadSigner, agreeing_rows, open_head
from kinoswarm_coordinator.sql_log import SqlLog
from kinoswarm_coordinator.web.app import create_app
from kinoswarm_protocol.errors import BadSignature
from kinoswarm_protocol.log_head import LogHead

SIGNERS = frozenset({COORDINATOR.peer_id})


@pytest.fixture
def log(tmp_path: Path):
    made = SqlLog(sqlite_url(tmp_path / "log.sqlite"))
    assert made.lead("test").next
    yield made
    made.close()


def signer(log: SqlLog) -> HeadSigner:
    return HeadSigner(log=log, key=COORDINATOR, swarm=SWARM, now_ms=lambda: 5)


def some_events() -> list[Event]:
    swarm = SmallSwarm()
    swarm.hello(NODE)
    swarm.train(NODE)
    return swarm.history


def opened(raw: bytes) -> LogHead:
    return open_head(raw, SWARM, SIGNERS)


def test_a_head_is_signed_once_for_every_end_of_the_log(log: SqlLog) -> None:
    events, signs = some_events(), signer(log)
    assert not signs.sign(), "an empty log has no end to sign"
    log.append(events[:2])
    assert signs.sign()
    assert not signs.sign()
    log.append(events[2:])
    assert signs.sign()
    kept = [opened(raw) for raw in log.signed_heads()]
    assert [head.seq for head in kept] == [2, len(events)]
    assert kept[-1] == opened(signs.newest)
    assert kept[-1].hash == log.head().hash.hex()
    assert kept[-1].epoch == 1


def test_a_restart_publishes_the_head_that_was_signed_before(log: SqlLog) -> None:
    log.append(some_events())
    first = signer(log)
    first.sign()
    again = signer(log)
    assert not again.sign()
    assert again.newest == first.newest


def test_a_head_of_a_stranger_does_not_count(log: SqlLog) -> None:
    log.append(some_events())
    strange = HeadSigner(log=log, key=NODE, swarm=SWARM, now_ms=lambda: 5)
    strange.sign()
    with pytest.raises(BadSignature, match="never was a coordinator"):
        opened(strange.newest)


def test_an_honest_log_agrees_with_its_heads(log: SqlLog) -> None:
    log.append(some_events())
    signs = signer(log)
    signs.sign()
    rows = list(agreeing_rows(log.read_rows(), [opened(signs.newest)], "log"))
    assert len(rows) == log.head().seq


def test_a_rewritten_history_is_found_though_its_chain_holds(log: SqlLog) -> None:
    events = some_events()
    log.append(events)
    signs = signer(log)
    signs.sign()
    rewritten = rows_after(EMPTY, [*events[:-1], events[0]])
    with pytest.raises(CorruptLog, match="signed another history"):
        list(agreeing_rows(rewritten, [opened(signs.newest)], "log"))


def test_a_log_that_was_cut_off_is_found(log: SqlLog) -> None:
    events = some_events()
    log.append(events)
    signs = signer(log)
    signs.sign()
    with pytest.raises(CorruptLog, match=f"ends after {len(events) - 1}"):
        list(agreeing_rows(rows_after(EMPTY, events[:-1]), [opened(signs.newest)], "log"))


def test_two_heads_of_one_number_never_both_agree(log: SqlLog) -> None:
    events = some_events()
    log.append(events)
    signs = signer(log)
    signs.sign()
    honest = opened(signs.newest)
    other = LogHead(seq=honest.seq, hash="ab" * 32, epoch=1, at_ms=6)
    with pytest.raises(CorruptLog, match="signed another history"):
        list(agreeing_rows(log.read_rows(), [honest, other], "log"))


def test_the_newest_head_is_published(log: SqlLog, tmp_path: Path) -> None:
    served = sources(tmp_path)
    log.append(some_events())
    served.heads = signer(log)
    app = create_app(served)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/api/v1/log/head")

    assert asyncio.run(ask()).status_code == 404
    served.heads.sign()
    answer = asyncio.run(ask())
    assert opened(answer.content).seq == log.head().seq
