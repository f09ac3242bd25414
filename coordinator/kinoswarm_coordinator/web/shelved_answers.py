"""A blob that lies on S3-compatible storage as an HTTP answer with ranges. Owns the range; verified before it is sent.

It goes through the coordinator and is no signed redirect: the bucket stays private, nodes need one address and
its pinned certificate only, limits and counts hold, and nobody gets a byte without the hash that its manifest promises.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from re import fullmatch

from fastapi.responses import Response, StreamingResponse

from kinoswarm_coordinator.web.bodies import OCTETS
from kinoswarm_coordinator.web.problems import problem
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.manifest import BlobManifest

_ONE_RANGE = r"bytes=(\d{0,18})-(\d{0,18})"


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `stop` (exclusive); `is_part` when a range was asked for."""

    start: int
    stop: int
    is_part: bool


def span_of(asked: str | None, size_bytes: int) -> Span | None:
    """What a Range header asks of `size_bytes` bytes (RFC 9110, 14.1.2); None when nothing of it is there.

    Whatever is not one plain range counts as no header, as the RFC allows.
    """
    whole = Span(0, size_bytes, is_part=False)
    found = fullmatch(_ONE_RANGE, (asked or "").strip())
    if found is None or not (found[1] or found[2]):
        return whole
    if not found[1]:
        start, stop = max(0, size_bytes - int(found[2])), size_bytes
    else:
        start = int(found[1])
        stop = min(int(found[2]) + 1, size_bytes) if found[2] else size_bytes
        if found[2] and int(found[2]) < start:
            return whole
    return Span(start, stop, is_part=True) if start < stop else None


def shelved_answer(
    store: BlobStore,
    blob: BlobId,
    manifest: BlobManifest,
    asked: str | None,
    headers: dict[str, str],
) -> Response:
    """The blob, or the part of it that the Range header names."""
    size = manifest.size_bytes
    span = span_of(asked, size)
    if span is None:
        refused = problem(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"the blob has {size} bytes")
        refused.headers["Content-Range"] = f"bytes */{size}"
        return refused
    told = {**headers, "Accept-Ranges": "bytes", "Content-Length": str(span.stop - span.start)}
    if span.is_part:
        told["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
    return StreamingResponse(
        _pieces(store, blob, manifest.chunk_bytes, span),
        status_code=HTTPStatus.PARTIAL_CONTENT if span.is_part else HTTPStatus.OK,
        media_type=OCTETS,
        headers=told,
    )


async def _pieces(
    store: BlobStore, blob: BlobId, chunk_bytes: int, span: Span
) -> AsyncIterator[bytes]:
    """Chunk by chunk, each read and verified once; an error breaks the connection, and the client resumes."""
    at = span.start
    while at < span.stop:
        stop = min(span.stop, (at // chunk_bytes + 1) * chunk_bytes)
        yield await asyncio.to_thread(store.read_range, blob, at, stop - at)
        at = stop
