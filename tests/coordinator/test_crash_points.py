"""The coordinator dies at every write and fsync of its database, by a kill and by a power cut, and is started again.

One scripted run (join, lease, hand in, judge, merge) through the real service with signed requests; at every boundary
the disk is copied twice, together with what nodes had been told by then. Every copy must open, and hold everything that
was acknowledged: no contribution lost, none counted twice, no lease granted twice, the ledger equal to the fold.
On PostgreSQL the server does the writing; there the coordinator dies at every statement and on both sides of a commit.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from coordinator.crash_vfs import CrashDisk, crash_vfs
from coordinator.postgresql import drop_tables
from coordinator.small_service import service_over
from coordinator.small_swarm import rules, trained, trusted_outcome
from protocol.samples import BLOB, COORDINATOR, SWARM
from sqlalchemy import event

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.credit import Ledger, ledger_of
from kinoswarm_coordinator.database import sqlite_url
from kinoswarm_coordinator.fold import fold
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.sql_log import SqlLog
from kinoswarm_coordinator.state import SwarmState
from kinoswarm_coordinator.submissions import settle
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import (
    CONTRIBUTION,
    LEASE,
    REPLY,
    REQUEST,
    Contribution,
    Hello,
    Lease,
    LeaseGrant,
    Machine,
    PullLease,
    Receipt,
    ReplyBody,
    Request,
    RequestBody,
    Submit,
    Welcome,
)
from kinoswarm_protocol.specs import ModeSpec

NODES = [KeyPair(bytes([n]) * 32) for n in (1, 2)]
RULES = rules(2, target_version=0, quorum_samples=1)


@dataclass
class Told:
    """What left the coordinator and lies with the nodes: leases by request, receipts, welcomes."""

    lease_by_request: dict[str, Lease] = field(default_factory=dict)
    receipts: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)

    def copy(self) -> "Told":
        return Told(dict(self.lease_by_request), list(self.receipts), list(self.nodes))


@dataclass(frozen=True)
class Crash:
    """One moment: what the disk holds if it ends here, and what was told before."""

    what: str
    files: dict[str, bytes]
    told: Told


@dataclass
class Life:
    """A coordinator over one log, and the nodes that talk to it."""

    log: SqlLog
    told: Told
    now_ms: int = 1_000_000

    def __post_init__(self) -> None:
        self.ledger = Ledger(1e9)
        self.journal = Journal(self.log, self.ledger.apply)
        self.service = service_over(self.journal, RULES, now_ms=lambda: self.now_ms)

    async def found(self) -> None:
        if not self.journal.state.versions:
            clusters = len(RULES.charter.clusters)
            event = ev.Founded(at_ms=self.now_ms, num_clusters=clusters, seed_checkpoint=BLOB)
            await self.service.record([event])

    async def ask(self, key: KeyPair, body: RequestBody, request_id: str) -> ReplyBody:
        self.now_ms += 1000
        request = Request(request_id=request_id, body=body)
        raw = await self.service.answer(seal(key, REQUEST, SWARM, request))
        reply = open_envelope(raw, REPLY, SWARM).body.body
        match reply:
            case Welcome():
                self.told.nodes.append(key.peer_id)
            case LeaseGrant():
                lease = open_envelope(reply.lease, LEASE, SWARM).body
                self.told.lease_by_request[request_id] = lease
            case Receipt():
                self.told.receipts.append(reply.lease_id)
        return reply

    async def pull(self, key: KeyPair, request_id: str) -> Lease | None:
        """A node that got its lease works on; one whose reply was lost asks again under the same id."""
        if request_id in self.told.lease_by_request:
            return self.told.lease_by_request[request_id]
        body = PullLease(modes=[ModeSpec(name="full")], clusters_on_disk=[], seconds_per_step=0.5)
        reply = await self.ask(key, body, request_id)
        return self.told.lease_by_request[request_id] if isinstance(reply, LeaseGrant) else None

    async def hand_in(self, key: KeyPair, lease: Lease, request_id: str) -> None:
        """Sent until a receipt came; then its blobs arrive."""
        trusted = key == COORDINATOR
        body = Contribution(
            lease_id=lease.lease_id,
            node=key.peer_id,
            finished_at_ms=1_000_000,
            outcome=trusted_outcome(lease) if trusted else trained(lease),
        )
        submit = Submit(contribution=seal(key, CONTRIBUTION, SWARM, body))
        if lease.lease_id not in self.told.receipts:
            reply = await self.ask(key, submit, request_id)
            assert isinstance(reply, Receipt), reply
        state = self.journal.state
        if LeaseId(lease.lease_id) in state.unsettled:
            work = state.work[LeaseId(lease.lease_id)]
            await self.service.record(settle(state, RULES, work, self.now_ms))


def number(n: int) -> str:
    return f"{n:032x}"


async def script(life: Life) -> None:
    """A short run: two nodes at once, then the operator's worker until nothing is left."""
    await life.found()
    machine = Machine(device="cpu", memory_gib=8.0, seconds_per_step=0.5)
    hello = Hello(pseudonym="volunteer", program_version="0.1.0", machine=machine, addresses=[])
    await asyncio.gather(*(life.ask(key, hello, number(i)) for i, key in enumerate(NODES)))
    leases = await asyncio.gather(*(life.pull(key, number(10 + i)) for i, key in enumerate(NODES)))
    await asyncio.gather(
        *(
            life.hand_in(key, lease, number(20 + i))
            for i, (key, lease) in enumerate(zip(NODES, leases, strict=True))
            if lease is not None
        )
    )
    for turn in range(8):
        lease = await life.pull(COORDINATOR, number(100 + turn))
        if lease is None:
            return
        await life.hand_in(COORDINATOR, lease, number(200 + turn))


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> list[Crash]:
    """Every boundary of the run, as a kill and as a power cut."""
    folder = tmp_path_factory.mktemp("run")
    told, found = Told(), {}

    def remember(what: str, disk: CrashDisk) -> None:
        for how, files in (("kill", disk.killed()), ("power cut", dict(disk.durable))):
            key = repr((sorted(files.items()), told))
            found.setdefault(key, Crash(f"{how} before {what}", files, told.copy()))

    disk = CrashDisk(remember)  # moments that differ in nothing are kept once
    with crash_vfs("crash", disk):
        log = SqlLog(f"sqlite:///file:{folder / 'log.sqlite'}?vfs=crash&uri=true")
        assert log.lead("first").next
        asyncio.run(script(Life(log, told)))
        log.close()
    assert len(told.receipts) >= 4
    return list(found.values())


def test_the_run_passes_every_kind_of_boundary(crashes: list[Crash]) -> None:
    kinds = Counter(crash.what.split(" before ")[-1] for crash in crashes)
    assert {"write .sqlite", "fsync .sqlite", "write .sqlite-wal", "fsync .sqlite-wal"} <= set(
        kinds
    )
    assert kinds["fsync .sqlite-wal"] >= 20, "every commit is synced"


def test_nothing_acknowledged_is_lost_and_nothing_counts_twice_wherever_it_dies(
    crashes: list[Crash], tmp_path: Path
) -> None:
    for index, crash in enumerate(crashes):
        folder = tmp_path / str(index)
        folder.mkdir()
        for name, data in crash.files.items():
            (folder / name).write_bytes(data)
        try:
            asyncio.run(_lives_on(sqlite_url(folder / "log.sqlite"), crash.told))
        except Exception as error:
            raise AssertionError(f"crash {index} of {len(crashes)}: {crash.what}") from error


class Killed(BaseException):
    """The coordinator ends here."""


class DyingLog(SqlLog):
    """Ends at its n-th boundary: before a statement, before a commit, or after it and before the reply."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.boundaries, self.dies_at = 0, 10**9
        event.listen(self._engine, "before_cursor_execute", self._asked)
        event.listen(self._engine, "commit", lambda connection: self._reached())

    def append(self, events: Sequence[ev.Event]) -> None:
        super().append(events)
        self._reached()

    def _asked(self, connection: object, cursor: object, statement: str, *rest: object) -> None:
        if "events.body" not in statement:  # reading the log changes nothing
            self._reached()

    def _reached(self) -> None:
        self.boundaries += 1
        if self.boundaries >= self.dies_at:
            raise Killed


@pytest.mark.parametrize(
    "every",
    [pytest.param(9, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)],
)
def test_the_same_holds_on_postgresql_at_every_statement_and_commit(
    postgresql_url: str, every: int
) -> None:
    whole = DyingLog(postgresql_url)
    _live(whole, Told())
    num_boundaries = whole.boundaries
    whole.close()
    assert num_boundaries > 60
    for dies_at in range(1, num_boundaries + 1, every):
        drop_tables(postgresql_url)
        told = Told()
        try:
            _dies(postgresql_url, told, dies_at)
            asyncio.run(_lives_on(postgresql_url, told))
        except Exception as error:
            raise AssertionError(f"dead at boundary {dies_at} of {num_boundaries}") from error


def _live(log: SqlLog, told: Told) -> None:
    assert log.lead("first").next
    asyncio.run(script(Life(log, told)))


def _dies(url: str, told: Told, dies_at: int) -> None:
    log = DyingLog(url)
    log.dies_at = dies_at
    with pytest.raises(Killed):
        _live(log, told)
    log.dies_at = 10**9
    log._lead = None  # it is dead: it gives nothing up
    log.close()
    after = SqlLog(url)
    after.promote()  # what a test does instead of waiting for the lease to run out
    after.close()


async def _lives_on(url: str, told: Told) -> None:
    log = SqlLog(url)
    try:
        assert log.lead("restarted").next
        life = Life(log, told.copy())
        _holds(life.journal.state, told)
        await script(life)
        _consistent(life, list(log.read()))
        _holds(life.journal.state, life.told)
    finally:
        log.close()


def _holds(state: SwarmState, told: Told) -> None:
    """Whatever left the coordinator is in the state that a restart finds."""
    assert set(told.nodes) <= set(state.nodes)
    for lease in told.lease_by_request.values():
        assert lease.lease_id in state.leases, "a lease that a node holds is unknown"
    for lease_id in told.receipts:
        assert lease_id in state.work, "an acknowledged contribution is lost"


def _consistent(life: Life, events: list[ev.Event]) -> None:
    issued = Counter(e.lease.lease_id for e in events if isinstance(e, ev.LeaseIssued))
    requests = Counter(
        (e.lease.node, e.request_id) for e in events if isinstance(e, ev.LeaseIssued)
    )
    received = Counter(e.lease_id for e in events if isinstance(e, ev.WorkReceived))
    merged = Counter(c for e in events if isinstance(e, ev.VersionCut) for c in e.contributions)
    for counted in (issued, requests, received, merged):
        assert all(count == 1 for count in counted.values())
    assert fold(SwarmState(), events) == life.journal.state
    assert ledger_of(events, 1e9).by_peer == life.ledger.by_peer
    assert len(received) >= 2, "the script went on to its end"
