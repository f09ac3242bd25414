"""What peers say on control and blob streams, around the bytes they carry. Owns every byte of it; does no IO.

`/kinoswarm/1/<swarm>/control`: one request frame; a reply; the receiver's acknowledgement.
`/kinoswarm/1/<swarm>/blob`: any number of asks, each answered in order by a reply; Goodbye ends it.
A reply is a frame: `Sending(size)`, after which exactly `size` bytes follow, or `No(code, sentence)`.
"""

from typing import Annotated, cast

from msgspec import Meta, Struct

from kinoswarm_protocol.codec import decode, encode
from kinoswarm_protocol.errors import Code, KinoswarmError, Refused, RemoteError
from kinoswarm_protocol.ids import BlobIdField, SwarmId
from kinoswarm_protocol.limits import MAX_BLOB_FRAME, MAX_SENTENCE, PROTOCOL_VERSION
from kinoswarm_protocol.specs import Count, Name


class _Frame(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    pass


class AskManifest(_Frame, frozen=True, kw_only=True, tag="manifest"):
    blob: BlobIdField


class AskChunk(_Frame, frozen=True, kw_only=True, tag="chunk"):
    blob: BlobIdField
    index: Count


class AskHave(_Frame, frozen=True, kw_only=True, tag="have"):
    """Which chunks the peer holds: bit i % 8 of byte i // 8 of its reply stands for chunk i, all other bits are 0."""

    blob: BlobIdField


class Goodbye(_Frame, frozen=True, kw_only=True, tag="bye"):
    """Everything that was asked for is here; the sender may close."""


class Sending(_Frame, frozen=True, kw_only=True, tag="sending"):
    size_bytes: Count


class No(_Frame, frozen=True, kw_only=True, tag="no"):
    code: Name
    sentence: Annotated[str, Meta(max_length=MAX_SENTENCE)]


Ask = AskManifest | AskChunk | AskHave | Goodbye
ReplyHead = Sending | No


def control_protocol(swarm: SwarmId) -> str:
    """The libp2p protocol of control streams; two swarms never share one."""
    return f"/kinoswarm/{PROTOCOL_VERSION}/{swarm}/control"


def blob_protocol(swarm: SwarmId) -> str:
    """The libp2p protocol of blob streams."""
    return f"/kinoswarm/{PROTOCOL_VERSION}/{swarm}/blob"


def dht_prefix(swarm: SwarmId) -> str:
    """What the DHT's own calls are prefixed with; hivemind would share them among all swarms."""
    return f"/kinoswarm/{PROTOCOL_VERSION}/{swarm}/dht/"


def read_ask(raw: bytes) -> Ask:
    """An ask from untrusted bytes; raises MalformedBytes or LimitExceeded."""
    return decode(raw, cast("type[Ask]", Ask), MAX_BLOB_FRAME)


def read_reply_head(raw: bytes) -> ReplyHead:
    """The head of a reply from untrusted bytes; raises MalformedBytes or LimitExceeded."""
    return decode(raw, cast("type[ReplyHead]", ReplyHead), 2 * MAX_BLOB_FRAME)


def refusal(error: KinoswarmError) -> bytes:
    """The reply that says no. What is wrong on this machine is not told to strangers."""
    if isinstance(error, RemoteError):
        return encode(No(code=error.code, sentence=str(error)[:MAX_SENTENCE]))
    sentence = "the peer has a problem of its own and cannot answer now; try again later"
    return encode(No(code=Code.OVERLOADED, sentence=sentence))


def refused(no: No) -> Refused:
    """The error for a peer's no; an unknown code of a newer peer counts as not permitted."""
    known = no.code in {code.value for code in Code}
    return Refused(Code(no.code) if known else Code.NOT_PERMITTED, no.sentence)
