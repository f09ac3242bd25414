"""Where a generated clip comes from, signed by the coordinator that made it. Owns the note and its check."""

import hashlib
from typing import Annotated

from msgspec import Meta, Struct

from kinoswarm_protocol.envelope import Kind, Opened, open_envelope
from kinoswarm_protocol.errors import HashMismatch
from kinoswarm_protocol.ids import BlobIdField, DigestField, PeerId, SwarmId
from kinoswarm_protocol.limits import MAX_BLOB_BYTES, MAX_CLUSTERS, MAX_PROMPT

MAX_STEPS = 1_000
_MAX_BYTES = 16 * 1024
_Count = Annotated[int, Meta(ge=0, le=2**53)]


class Provenance(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """One clip: its bytes by their hash, and all that is needed to make it again."""

    clip_sha256: DigestField
    clip_bytes: Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]
    release: Annotated[int, Meta(ge=1, le=2**31)]
    release_table: BlobIdField
    """The release's signed table of contents."""
    prompt: Annotated[str, Meta(min_length=1, max_length=MAX_PROMPT)]
    seed: _Count
    guidance: Annotated[float, Meta(ge=0.0, le=100.0)]
    top_k: Annotated[int, Meta(ge=1, le=MAX_CLUSTERS)]
    expert_by_step: Annotated[
        list[Annotated[int, Meta(ge=0, lt=MAX_CLUSTERS)]], Meta(min_length=1, max_length=MAX_STEPS)
    ]
    """The most weighted expert of every denoising step."""
    made_at_ms: _Count


PROVENANCE: Kind[Provenance] = Kind("provenance", Provenance, _MAX_BYTES)


def open_provenance(
    note: bytes, clip: bytes, swarm: SwarmId, signer: PeerId | None = None
) -> Opened[Provenance]:
    """The note about `clip`.

    Raises the errors of open_envelope, and HashMismatch when the note is about other bytes.
    """
    opened = open_envelope(note, PROVENANCE, swarm, signer)
    found = hashlib.sha256(clip).hexdigest()
    if found != opened.body.clip_sha256 or len(clip) != opened.body.clip_bytes:
        raise HashMismatch(
            f"the note is about a clip of {opened.body.clip_bytes} bytes with hash {opened.body.clip_sha256[:12]}…, "
            f"this one has {len(clip)} bytes and hash {found[:12]}…: it was changed, or the note belongs to another"
        )
    return opened
