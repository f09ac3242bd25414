"""What a coordinator still wants of a blob that is brought to it over HTTP(S). Owns this answer's type and bounds."""

from typing import Annotated

from msgspec import Meta, Struct

from kinoswarm_protocol.codec import decode
from kinoswarm_protocol.errors import MalformedBytes
from kinoswarm_protocol.manifest import BlobManifest

MAX_GAPS = 1_024
"""Gaps in one answer; what comes after them is asked for again."""

MAX_UPLOAD_STATE_BYTES = 32 * 1024
_Index = Annotated[int, Meta(ge=0, le=2**40)]


class Gap(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Neighbouring chunks that are missing: `first`, and how many."""

    first: _Index
    count: Annotated[int, Meta(ge=1, le=2**40)]


class UploadState(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How far an upload is."""

    complete: bool
    """The whole blob is here, verified; nothing more is wanted."""
    manifest_here: bool
    """Chunks may come; before the manifest none can be verified."""
    gaps: Annotated[list[Gap], Meta(max_length=MAX_GAPS)]


def gaps_of(missing: list[int]) -> list[Gap]:
    """Sorted chunk indexes as gaps, at most MAX_GAPS of them."""
    gaps: list[Gap] = []
    for index in missing:
        if gaps and gaps[-1].first + gaps[-1].count == index:
            gaps[-1] = Gap(gaps[-1].first, gaps[-1].count + 1)
        elif len(gaps) == MAX_GAPS:
            break
        else:
            gaps.append(Gap(index, 1))
    return gaps


def read_upload_state(raw: bytes, manifest: BlobManifest) -> UploadState:
    """Decode an answer about the blob of this manifest. Raises MalformedBytes, also for chunks that do not exist."""
    state = decode(raw, UploadState, MAX_UPLOAD_STATE_BYTES)
    end = max((gap.first + gap.count for gap in state.gaps), default=0)
    if end > manifest.num_chunks:
        raise MalformedBytes(
            f"chunk {end - 1} is asked for, but the blob has {manifest.num_chunks}"
        )
    return state
