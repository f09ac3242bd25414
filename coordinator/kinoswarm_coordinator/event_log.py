"""The append-only, hash-chained event log: SQLite (any SQLAlchemy URL), and in memory. Owns durability and the chain.

A row's hash covers the row before it, so that history can't be changed in the middle unseen. `append` returns only when
the rows are on disk; what a coordinator acknowledges is never lost.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from sqlalchemy import (
    Column,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DatabaseError

from kinoswarm_coordinator.events import Event
from kinoswarm_protocol.errors import LocalError

GENESIS = bytes(32)
_ENCODER = msgspec.msgpack.Encoder()
_DECODER: "msgspec.msgpack.Decoder[Event]" = msgspec.msgpack.Decoder(Event)
_READ_ROWS = 10_000

_METADATA = MetaData()
_ROWS = Table(
    "events",
    _METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("body", LargeBinary, nullable=False),
)


class EventLog(Protocol):
    """What a coordinator needs of a log."""

    def append(self, events: Sequence[Event]) -> None:
        """Store events durably, all or none."""

    def read(self) -> Iterator[Event]:
        """All events in order, the chain checked on the way. Raises CorruptLog."""

    def close(self) -> None:
        """Release what is held open."""


class CorruptLog(LocalError):
    """The log was changed or damaged at `seq`."""


class LogInUse(LocalError):
    """Another program writes this log."""


def chain(previous: bytes, seq: int, body: bytes) -> bytes:
    """The hash of row `seq`."""
    return hashlib.sha256(previous + seq.to_bytes(8, "big") + body).digest()


class MemoryLog:
    """A log for simulations and tests of logic."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []

    def append(self, events: Sequence[Event]) -> None:
        self._bodies += [_ENCODER.encode(item) for item in events]

    def read(self) -> Iterator[Event]:
        return (_DECODER.decode(body) for body in self._bodies)

    def close(self) -> None:
        """Nothing is held open."""


class SqlLog:
    """A log in a database; on SQLite in WAL mode with an fsync for every commit."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _durable_sqlite)
        self._seq, self._hash = 0, GENESIS
        try:
            _METADATA.create_all(self._engine)
            with self._engine.connect() as connection:
                self._find_head(connection)
        except DatabaseError as error:
            raise CorruptLog(
                f"{_shown(self._engine)} cannot be opened as an event log ({error.orig}); restore it from a backup"
            ) from error

    def append(self, events: Sequence[Event]) -> None:
        rows, head, seq = [], self._hash, self._seq
        for item in events:
            seq += 1
            body = _ENCODER.encode(item)
            head = chain(head, seq, body)
            rows.append({"seq": seq, "hash": head, "body": body})
        if not rows:
            return
        with self._engine.begin() as connection:
            connection.execute(insert(_ROWS), rows)
        self._seq, self._hash = seq, head

    def read(self) -> Iterator[Event]:
        with self._engine.connect() as connection:
            yield from _checked(_rows(connection), _shown(self._engine))

    def close(self) -> None:
        self._engine.dispose()

    def _find_head(self, connection: Connection) -> None:
        newest = select(_ROWS.c.seq, _ROWS.c.hash).order_by(_ROWS.c.seq.desc()).limit(1)
        row = connection.execute(newest).first()
        if row is not None:
            self._seq, self._hash = row.seq, row.hash


def _rows(connection: Connection) -> Iterator[tuple[int, bytes, bytes]]:
    query = select(_ROWS.c.seq, _ROWS.c.hash, _ROWS.c.body).order_by(_ROWS.c.seq)
    result = connection.execution_options(yield_per=_READ_ROWS).execute(query)
    for row in result:
        yield row.seq, row.hash, row.body


def _checked(rows: Iterable[tuple[int, bytes, bytes]], where: str) -> Iterator[Event]:
    head = GENESIS
    for expected, (seq, stored, body) in enumerate(rows, start=1):
        head = chain(head, seq, body)
        if seq != expected or head != stored:
            raise CorruptLog(
                f"{where}: event {expected} was changed or is missing; restore the log from a backup"
            )
        try:
            yield _DECODER.decode(body)
        except msgspec.DecodeError as error:
            raise CorruptLog(
                f"{where}: event {seq} is of a newer version ({error}); update the program"
            ) from error


def _durable_sqlite(connection: "object", record: "object") -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _shown(engine: Engine) -> str:
    """The database for people, without a password."""
    return engine.url.render_as_string(hide_password=True)


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite log in a file."""
    return f"sqlite:///{path}"
