"""The signed end of a coordinator's event log. Owns the statement "my log has these rows", which can't be taken back.

The hash covers every row before it (the log is a hash chain), so a coordinator that signs two hashes of one row, or
whose log later lacks a head that it signed, has proven its own lie. A head also states some rows before it (`marks`),
so that two heads of different ends are rows of one history or are not: whoever sees both can tell.
"""

from typing import Annotated

from msgspec import Meta, Struct

from kinoswarm_protocol.envelope import Kind
from kinoswarm_protocol.ids import DigestField

MARK_LEVELS = (6, 10, 14, 18, 22)
"""A head marks the last row whose number is a multiple of two to each of these powers."""
LOG_KEY = "log"
"""Of a look-up: the newest signed heads that somebody holds."""
MAX_HEAD_BYTES = 1_280
"""Of a whole envelope."""
Row = Annotated[int, Meta(ge=1, le=2**53)]


class Mark(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """An earlier row."""

    seq: Row
    hash: DigestField


class LogHead(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The last row of the log at a moment."""

    seq: Row
    """How many events the log has."""
    hash: DigestField
    """SHA-256 of the last row: of the row before it, its number and its event."""
    epoch: Annotated[int, Meta(ge=0, le=2**31)]
    """Of the leader that signed."""
    at_ms: Annotated[int, Meta(ge=0, le=2**53)]
    marks: Annotated[list[Mark], Meta(max_length=len(MARK_LEVELS))] = []
    """Rows of the same log, the latest first; none in a log that is shorter than they lie apart."""

    def rows(self) -> dict[int, str]:
        """Every row that it states, by number."""
        return {mark.seq: mark.hash for mark in self.marks} | {self.seq: self.hash}


LOG_HEAD: Kind[LogHead] = Kind("log_head", LogHead, MAX_HEAD_BYTES)


def marked_rows(seq: int) -> list[int]:
    """The rows that a head of this end marks, the latest first."""
    return sorted({seq >> level << level for level in MARK_LEVELS} - {0, seq}, reverse=True)


def row_in_doubt(one: LogHead, other: LogHead) -> int | None:
    """The first row of which the two state different hashes: they can't both be of one history. Else None."""
    rows, others = one.rows(), other.rows()
    differing = [seq for seq in rows.keys() & others.keys() if rows[seq] != others[seq]]
    return min(differing, default=None)
