"""Signed envelopes: everything that outlives a connection. Owns the signing context; verify first, decode second."""

from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct

from kinoswarm_protocol.codec import decode, encode
from kinoswarm_protocol.errors import BadSignature, LimitExceeded, MalformedBytes, VersionMismatch
from kinoswarm_protocol.ids import PeerId, PeerIdField, SwarmId
from kinoswarm_protocol.keys import SIGNATURE_BYTES, KeyPair, verify
from kinoswarm_protocol.limits import MAX_CHARTER_BYTES, MAX_NAME, PROTOCOL_VERSION

_DOMAIN = b"kinoswarm envelope\x00"
_OVERHEAD = 512  # signer, kind, swarm, signature and MessagePack's own bytes around a payload

T = TypeVar("T", bound=Struct)


class Envelope(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Payload bytes with a signature over (domain, protocol version, kind, swarm, payload)."""

    version: int
    kind: Annotated[str, Meta(max_length=MAX_NAME)]
    swarm: Annotated[str, Meta(max_length=64)]
    """Swarm id; empty for the charter, whose hash is the id, and for statements of accounts, which name no swarm."""
    signer: PeerIdField
    payload: Annotated[bytes, Meta(max_length=MAX_CHARTER_BYTES)]
    signature: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What an envelope may carry: a name, the type of the payload and its greatest size in bytes."""

    name: str
    type: type[T]
    max_bytes: int


@dataclass(frozen=True)
class Opened(Generic[T]):
    """A payload whose signature was checked."""

    body: T
    signer: PeerId
    raw: bytes
    """The whole envelope, for storing or passing on."""


def _context(version: int, kind: str, swarm: str, payload: bytes) -> bytes:
    """The signed bytes; every variable part is length-prefixed so that no two contexts collide."""
    parts = [bytes([version]), kind.encode(), swarm.encode(), payload]
    return _DOMAIN + b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def seal(key: KeyPair, kind: Kind[T], swarm: SwarmId | str, body: T) -> bytes:
    """Sign `body` and return the envelope's bytes.

    Only what others will be able to open is signed: raises LimitExceeded when the body is too large for its kind, and
    MalformedBytes when a field is outside its type's bounds, which msgspec does not check on construction.
    """
    payload = encode(body)
    if len(payload) > kind.max_bytes:
        raise LimitExceeded(f"{kind.name}: {len(payload)} bytes, at most {kind.max_bytes}")
    decode(payload, kind.type, kind.max_bytes)
    signature = key.sign(_context(PROTOCOL_VERSION, kind.name, swarm, payload))
    return encode(Envelope(PROTOCOL_VERSION, kind.name, swarm, key.peer_id, payload, signature))


def open_envelope(
    raw: bytes, kind: Kind[T], swarm: SwarmId | str, signer: PeerId | None = None
) -> Opened[T]:
    """Check size, version, kind, swarm, signer and signature, then decode the payload.

    Raises LimitExceeded, MalformedBytes, VersionMismatch or BadSignature; nothing of the payload is decoded before
    the signature holds.
    """
    envelope = _checked_envelope(raw, kind, swarm, signer)
    message = _context(envelope.version, envelope.kind, envelope.swarm, envelope.payload)
    verify(envelope.signer, message, envelope.signature)
    body = decode(envelope.payload, kind.type, kind.max_bytes)
    return Opened(body, envelope.signer, raw)


def _checked_envelope(raw: bytes, kind: Kind[T], swarm: str, signer: PeerId | None) -> Envelope:
    envelope = decode(raw, Envelope, kind.max_bytes + _OVERHEAD)
    if envelope.version != PROTOCOL_VERSION:
        raise VersionMismatch(
            f"{kind.name}: protocol version {envelope.version}, this program speaks {PROTOCOL_VERSION}; "
            "update the older of the two"
        )
    if envelope.kind != kind.name:
        raise MalformedBytes(f"expected an envelope of kind {kind.name}, got {envelope.kind!r}")
    if envelope.swarm != swarm:
        raise BadSignature(
            f"{kind.name} belongs to swarm {envelope.swarm[:12]!r}, not {swarm[:12]!r}"
        )
    if signer is not None and envelope.signer != signer:
        raise BadSignature(f"{kind.name} is signed by {envelope.signer}, expected {signer}")
    return envelope


def peek_payload(raw: bytes, max_bytes: int) -> bytes:
    """The payload bytes of an envelope, unverified: only for computing a hash that is compared with a trusted one."""
    return decode(raw, Envelope, max_bytes + _OVERHEAD).payload
