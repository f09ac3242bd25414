"""The append-only, hash-chained event log: what any log promises, and one in memory. Owns the chain and a row's bytes.

A row's hash covers the row before it, so that history can't be changed in the middle unseen. `append` returns only when
the rows are on disk; what a coordinator acknowledges is never lost. Databases are in sql_log.py.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from kinoswarm_coordinator.events import Event
from kinoswarm_protocol.errors import LocalError

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: "msgspec.msgpack.Decoder[Event]" = msgspec.msgpack.Decoder(Event)


@dataclass(frozen=True)
class Head:
    """The end of a log: the number of its last row, and the hash that covers all rows."""

    seq: int
    hash: bytes


GENESIS = Head(0, bytes(32))


@dataclass(frozen=True)
class Row:
    """One event as it is stored."""

    seq: int
    hash: bytes
    body: bytes


class EventLog(Protocol):
    """What a coordinator needs of a log."""

    def append(self, events: Sequence[Event]) -> None:
        """Store events durably, all or none."""

    def read(self) -> Iterator[Event]:
        """All events in order, the chain checked on the way. Raises CorruptLog."""

    def head(self) -> Head:
        """The end of what is durable."""

    def close(self) -> None:
        """Release what is held open."""


class CorruptLog(LocalError):
    """The log was changed or damaged."""


class LogInUse(LocalError):
    """Another program writes this log."""


class NotLeader(LogInUse):
    """Another coordinator leads this swarm, or none was asked to: nothing was written."""


def chain(previous: bytes, seq: int, body: bytes) -> bytes:
    """The hash of row `seq`."""
    return hashlib.sha256(previous + seq.to_bytes(8, "big") + body).digest()


def rows_after(head: Head, events: Iterable[Event]) -> list[Row]:
    """The rows that continue a log with `events`."""
    rows = []
    for event in events:
        body = _ENCODER.encode(event)
        head = Head(head.seq + 1, chain(head.hash, head.seq + 1, body))
        rows.append(Row(head.seq, head.hash, body))
    return rows


def checked_rows(rows: Iterable[Row], where: str) -> Iterator[Row]:
    """The same rows, each compared with the chain. Raises CorruptLog naming the first that is wrong."""
    head = GENESIS
    for row in rows:
        expected = head.seq + 1
        head = Head(expected, chain(head.hash, row.seq, row.body))
        if row.seq != expected or row.hash != head.hash:
            raise CorruptLog(
                f"{where}: event {expected} was changed or is missing; restore the log from a backup"
            )
        yield row


def event_of(row: Row, where: str) -> Event:
    """The event in a checked row. Raises CorruptLog when this program does not know it."""
    try:
        return _DECODER.decode(row.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptLog(
            f"{where}: event {row.seq} is of a newer version ({error}); update the program"
        ) from error


class MemoryLog:
    """A log for simulations and tests of logic."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def append(self, events: Sequence[Event]) -> None:
        self._rows += rows_after(self.head(), events)

    def read(self) -> Iterator[Event]:
        where = "the log in memory"
        return (event_of(row, where) for row in checked_rows(self._rows, where))

    def head(self) -> Head:
        return Head(self._rows[-1].seq, self._rows[-1].hash) if self._rows else GENESIS

    def close(self) -> None:
        """Nothing is held open."""
