"""Names of things as types, and the only way to make them from text. Owns their syntax; must not do IO."""

import hashlib
from typing import Annotated, NewType

from msgspec import Meta

from kinoswarm_protocol.errors import MalformedBytes

PeerId = NewType("PeerId", str)
"""A node's id: libp2p's base58 PeerId of an Ed25519 key (12D3Koo…); it embeds the public key."""

SwarmId = NewType("SwarmId", str)
"""Lower-case hex SHA-256 of the charter's payload."""

BlobId = NewType("BlobId", str)
"""Lower-case hex SHA-256 of a blob's encoded manifest."""

LeaseId = NewType("LeaseId", str)
"""32 hex digits drawn by the coordinator."""

_HEX64 = r"^[0-9a-f]{64}$"
PeerIdField = Annotated[PeerId, Meta(pattern=r"^12D3Koo[1-9A-HJ-NP-Za-km-z]{45}$", max_length=52)]
SwarmIdField = Annotated[SwarmId, Meta(pattern=_HEX64, max_length=64)]
BlobIdField = Annotated[BlobId, Meta(pattern=_HEX64, max_length=64)]
LeaseIdField = Annotated[LeaseId, Meta(pattern=r"^[0-9a-f]{32}$", max_length=32)]
RelativePath = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*\Z",
    ),
]
"""A file inside a folder: no way up, no root, nothing hidden, no letters that a file system might read otherwise."""
DigestField = Annotated[str, Meta(pattern=_HEX64, max_length=64)]


def sha256_hex(data: bytes) -> str:
    """Lower-case hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def swarm_id_of(charter_payload: bytes) -> SwarmId:
    """A swarm is named by the hash of its charter's payload bytes."""
    return SwarmId(sha256_hex(charter_payload))


def parse_digest(text: str, what: str) -> str:
    """Check that `text` is 64 lower-case hex digits; raises MalformedBytes naming `what`."""
    if len(text) != 64 or any(c not in "0123456789abcdef" for c in text):
        raise MalformedBytes(f"{what}: expected 64 lower-case hex digits, got {text[:80]!r}")
    return text


def parse_blob_id(text: str) -> BlobId:
    """A blob id from untrusted text; raises MalformedBytes."""
    return BlobId(parse_digest(text, "blob id"))
