"""What an operator may do to a running swarm: signed, one request each, kept in the log. Owns these messages."""

from typing import Annotated

from msgspec import Meta, Struct

from kinoswarm_protocol.envelope import Kind
from kinoswarm_protocol.ids import PeerIdField
from kinoswarm_protocol.limits import MAX_CLUSTERS, MAX_SENTENCE

MAX_ADMIN_BYTES = 4 * 1024
MAX_AGE_MS = 5 * 60_000
"""A request older or newer than this is refused: a copied one is worth nothing tomorrow."""

_Sentence = Annotated[str, Meta(min_length=1, max_length=MAX_SENTENCE)]
_Time = Annotated[int, Meta(ge=0, le=2**53)]


class _Action(
    Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True, tag=True
):
    pass


class PauseSwarm(_Action, frozen=True, kw_only=True, tag="pause"):
    """No new training until it is resumed; what is under way is still taken, judged and merged."""

    sentence: _Sentence


class ResumeSwarm(_Action, frozen=True, kw_only=True, tag="resume"):
    """Training goes on."""


class BanNode(_Action, frozen=True, kw_only=True, tag="ban"):
    """A node gets no leases and its submissions are refused until then."""

    peer: PeerIdField
    until_ms: _Time
    sentence: _Sentence


class UnbanNode(_Action, frozen=True, kw_only=True, tag="unban"):
    """A ban ends now."""

    peer: PeerIdField


class RollBack(_Action, frozen=True, kw_only=True, tag="rollback"):
    """Cut a new version with the content of an older one; what rests on the versions between is set aside."""

    cluster: Annotated[int, Meta(ge=0, lt=MAX_CLUSTERS)]
    lineage: Annotated[int, Meta(ge=0, le=1)]
    to_version: Annotated[int, Meta(ge=0, le=2**31)]
    sentence: _Sentence


class MakeRelease(_Action, frozen=True, kw_only=True, tag="release"):
    """Build a release of the newest versions now, even when not every expert is newer than in the last one."""


AdminAction = PauseSwarm | ResumeSwarm | BanNode | UnbanNode | RollBack | MakeRelease


class AdminRequest(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """One action. Its id makes it happen once."""

    request_id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    at_ms: _Time
    action: AdminAction


class AdminAnswer(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What came of it, in a sentence."""

    done: bool
    sentence: Annotated[str, Meta(max_length=MAX_SENTENCE)]


ADMIN: Kind[AdminRequest] = Kind("admin", AdminRequest, MAX_ADMIN_BYTES)
