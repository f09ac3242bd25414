"""The signed end of a coordinator's event log. Owns the statement "my log has these rows", which can't be taken back.

The hash covers every row before it (the log is a hash chain), so a coordinator that signs two heads with one number, or
whose log later lacks a head that it signed, has proven its own lie.
"""

from typing import Annotated

from msgspec import Meta, Struct

from kinoswarm_protocol.envelope import Kind
from kinoswarm_protocol.ids import DigestField


class LogHead(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The last row of the log at a moment."""

    seq: Annotated[int, Meta(ge=1, le=2**53)]
    """How many events the log has."""
    hash: DigestField
    """SHA-256 of the last row: of the row before it, its number and its event."""
    epoch: Annotated[int, Meta(ge=0, le=2**31)]
    """Of the leader that signed."""
    at_ms: Annotated[int, Meta(ge=0, le=2**53)]


LOG_HEAD: Kind[LogHead] = Kind("log_head", LogHead, 1024)
