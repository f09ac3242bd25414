"""The event log in a database: SQLite in WAL mode, or PostgreSQL by URL. Owns its tables, durability and fencing.

Anyone may read. Writing needs `lead()` first; from then on every append compares the epoch in its own transaction
(leadership.py says why). On SQLite a lock on a file beside the database keeps a second writer out, and the kernel
drops it with the process, so that a restart goes on at once.
"""

import contextlib
import fcntl
import itertools
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from kinoswarm_coordinator import leadership as ls
from kinoswarm_coordinator.database import engine_of, file_of, making_tables, refuse_forgetful
from kinoswarm_coordinator.event_log import (
    GENESIS,
    CorruptLog,
    Head,
    LogInUse,
    NotLeader,
    Row,
    checked_rows,
    event_of,
    rows_after,
)
from kinoswarm_coordinator.events import Event
from kinoswarm_protocol.errors import LocalError

_READ_ROWS = 10_000
_WRITTEN_ROWS = 1_000
_METADATA = MetaData()
_ROWS = Table(
    "events",
    _METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("body", LargeBinary, nullable=False),
)
_HEADS = Table(
    "signed_heads",
    _METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("envelope", LargeBinary, nullable=False),
)
_LEADER = Table(
    "leader",
    _METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", String(200), nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("restored", Boolean, nullable=False),
)
_THE_ROW = 1


class SqlLog:
    """A log in a database. What is appended is on disk when `append` returns."""

    def __init__(self, url: str, clock_ms: Callable[[], int] | None = None) -> None:
        """Open for reading, and make the tables of a new log. `clock_ms` replaces the database's clock in tests.

        Raises CorruptLog when the database can't be opened, LocalError when it would lose what it acknowledges.
        """
        self._engine = engine_of(url)
        self._clock_ms = clock_ms
        self._lead: ls.Leadership | None = None
        self._lock: int | None = None
        self._head = GENESIS
        try:
            with making_tables(self._engine) as connection:
                _METADATA.create_all(connection)
                connection.execute(_FIRST_LEADER, {"id": _THE_ROW, **vars(ls.NOBODY)})
            with self._engine.connect() as connection:
                self._head = _head_in(connection)
                refuse_forgetful(connection)
        except OperationalError as error:
            self._engine.dispose()
            raise LocalError(
                f"{self.where} cannot be reached ({error.orig}); start the database, or correct database_url"
            ) from error
        except DatabaseError as error:
            self._engine.dispose()
            raise CorruptLog(
                f"{self.where} cannot be opened as an event log ({error.orig}); restore it from a "
                "backup"
            ) from error

    @property
    def where(self) -> str:
        """The database for people, without a password."""
        return self._engine.url.render_as_string(hide_password=True)

    @property
    def epoch(self) -> int:
        """Of this leader; 0 before it leads."""
        return self._lead.epoch if self._lead else 0

    # --- reading -------------------------------------------------------------------------------

    def read(self) -> Iterator[Event]:
        with contextlib.closing(self.read_rows()) as rows:
            for row in rows:
                yield event_of(row, self.where)

    def read_rows(self) -> Generator[Row, None, None]:
        """The rows themselves, the chain checked on the way: for backups. Raises CorruptLog."""
        query = select(_ROWS).order_by(_ROWS.c.seq)
        with (
            self._engine.connect() as connection,
            connection.execution_options(yield_per=_READ_ROWS).execute(query) as result,
        ):
            rows = (Row(row.seq, bytes(row.hash), bytes(row.body)) for row in result)
            yield from checked_rows(rows, self.where)

    def head(self) -> Head:
        return self._head

    def leadership(self) -> ls.Leadership:
        """Who leads this log, or led it."""
        with self._engine.connect() as connection:
            return _leadership_in(connection)

    def hashes_of(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """The hashes of these rows, as far as they are there."""
        query = select(_ROWS.c.seq, _ROWS.c.hash).where(_ROWS.c.seq.in_(seqs))
        with self._engine.connect() as connection:
            return {row.seq: bytes(row.hash) for row in connection.execute(query)}

    def signed_heads(self, at_least: int = 0) -> list[bytes]:
        """Every signed head of `at_least` that many events, oldest first."""
        query = select(_HEADS.c.envelope).where(_HEADS.c.seq >= at_least).order_by(_HEADS.c.seq)
        with self._engine.connect() as connection:
            found = connection.execute(query)
            return [bytes(row.envelope) for row in found]

    # --- writing -------------------------------------------------------------------------------

    def append(self, events: Sequence[Event]) -> None:
        """Store events, all or none. Raises NotLeader, with nothing written, unless this is the leader."""
        if not events:
            return
        rows = rows_after(self._head, events)
        self._write(rows)
        self._head = Head(rows[-1].seq, rows[-1].hash)

    def add_signed_head(self, seq: int, envelope: bytes) -> None:
        """Keep a signed head. Raises NotLeader."""
        with self._fenced() as connection:
            connection.execute(insert(_HEADS), {"seq": seq, "envelope": envelope})

    def import_rows(self, rows: Iterator[Row], heads: Sequence[tuple[int, bytes]]) -> None:
        """Fill a new log from a checked backup in one transaction. Raises LocalError when this log is not empty."""
        if self._head != GENESIS:
            raise LocalError(f"{self.where} holds a log already; restore into an empty database")
        head = GENESIS
        with self._fenced() as connection:
            while batch := list(itertools.islice(rows, _WRITTEN_ROWS)):
                connection.execute(insert(_ROWS), [vars(row) for row in batch])
                head = Head(batch[-1].seq, batch[-1].hash)
            for seq, envelope in heads:
                connection.execute(insert(_HEADS), {"seq": seq, "envelope": envelope})
        self._head = head

    def _write(self, rows: Sequence[Row]) -> None:
        with self._fenced() as connection:
            connection.execute(insert(_ROWS), [vars(row) for row in rows])

    @contextlib.contextmanager
    def _fenced(self) -> Iterator[Connection]:
        """A transaction that is committed only if this is still the leader.

        The epoch is read after the writes: on SQLite the first write takes the only write lock, and on PostgreSQL the
        row stays locked until the commit, so nobody can take over between the look and the commit.
        """
        if self._lead is None:
            raise NotLeader(f"{self.where} was opened for reading: take the lead before writing")
        try:
            with self._engine.begin() as connection:
                yield connection
                found = connection.execute(_LOCKED_LEADER).one()
                if found.epoch != self._lead.epoch:
                    raise NotLeader(_superseded(self._lead.epoch, found.epoch, found.holder))
        except IntegrityError as error:
            raise NotLeader(
                f"{self.where}: another program wrote events after row {self._head.seq}; start this coordinator again"
            ) from error
        except DatabaseError as error:
            raise LocalError(
                f"{self.where} failed while writing ({error.orig}); start this coordinator again when the database is "
                "well, and it goes on with what was kept"
            ) from error

    # --- leading -------------------------------------------------------------------------------

    def lead(self, holder: str) -> ls.Claim:
        """Try to become the leader; the claim says whether it worked. Raises LogInUse on a SQLite file in use."""
        self._take_file_lock()
        with self._engine.begin() as connection:
            now_ms = self._now_ms(connection)
            before = _leadership_in(connection)
            made = ls.claim(before, holder[:200], now_ms, alone=self._lock is not None)
            if made.next is None:
                return made
            if not _replace(connection, before, made.next):
                return ls.Claim(None, "another coordinator took the lead this moment")
            self._head = _head_in(connection)
        self._lead = made.next
        return made

    def renew(self) -> None:
        """Hold the lead for longer. Raises NotLeader when another coordinator took over."""
        if self._lead is None:
            raise NotLeader(f"{self.where} is not led from here")
        with self._engine.begin() as connection:
            now_ms = self._now_ms(connection)
            if not _replace(connection, self._lead, ls.renewed(self._lead, now_ms)):
                now = _leadership_in(connection)
                raise NotLeader(_superseded(self._lead.epoch, now.epoch, now.holder))

    def promote(self) -> ls.Leadership:
        """End every leader's epoch, and let a restored log be led. Raises LogInUse on a SQLite file in use."""
        return self._put(ls.promoted)

    def mark_restored(self, epoch: int) -> ls.Leadership:
        """Nobody may lead this log before a promotion."""
        return self._put(lambda before: ls.restored(epoch))

    def close(self) -> None:
        """Give up the lead, so that a standby need not wait, and release what is held open."""
        if self._lead is not None:
            with contextlib.suppress(DatabaseError), self._engine.begin() as connection:
                _replace(connection, self._lead, ls.given_up(self._lead))
            self._lead = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._engine.dispose()

    def _put(self, change: Callable[[ls.Leadership], ls.Leadership]) -> ls.Leadership:
        self._take_file_lock()
        with self._engine.begin() as connection:
            before = _leadership_in(connection)
            after = change(before)
            if not _replace(connection, before, after):
                raise NotLeader(f"{self.where}: the leader changed this moment; ask again")
        self._lead = None
        return after

    def _now_ms(self, connection: Connection) -> int:
        if self._clock_ms is not None:
            return self._clock_ms()
        if self._engine.dialect.name == "sqlite":
            return int(time.time() * 1000)
        seconds = func.extract("epoch", func.clock_timestamp())
        return int(connection.execute(select(seconds * 1000)).scalar_one())

    def _take_file_lock(self) -> None:
        path = file_of(self._engine.url)
        if path is None or self._lock is not None:
            return
        descriptor = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise LogInUse(
                f"a coordinator that runs on this machine writes {path}; end it first"
            ) from error
        self._lock = descriptor


_FIRST_LEADER = text(
    "insert into leader (id, epoch, holder, expires_at_ms, restored) "
    "values (:id, :epoch, :holder, :expires_at_ms, :restored) on conflict do nothing"
)
_LOCKED_LEADER = (
    select(_LEADER.c.epoch, _LEADER.c.holder).where(_LEADER.c.id == _THE_ROW).with_for_update()
)


def _superseded(mine: int, epoch: int, holder: str) -> str:
    return (
        f"{holder} leads with epoch {epoch}, and this coordinator's was {mine}: nothing was written"
    )


def _head_in(connection: Connection) -> Head:
    newest = select(_ROWS.c.seq, _ROWS.c.hash).order_by(_ROWS.c.seq.desc()).limit(1)
    row = connection.execute(newest).first()
    return GENESIS if row is None else Head(row.seq, bytes(row.hash))


def _leadership_in(connection: Connection) -> ls.Leadership:
    row = connection.execute(select(_LEADER).where(_LEADER.c.id == _THE_ROW)).one()
    return ls.Leadership(row.epoch, row.holder, row.expires_at_ms, row.restored)


def _replace(connection: Connection, before: ls.Leadership, after: ls.Leadership) -> bool:
    """Write `after` unless the epoch is no longer `before`'s; tells whether it was written."""
    ours = (_LEADER.c.id == _THE_ROW) & (_LEADER.c.epoch == before.epoch)
    return connection.execute(update(_LEADER).where(ours).values(vars(after))).rowcount == 1
