"""Brings a blob to a coordinator over HTTP(S), under a lease. Owns the order: ask what is missing, send it, ask again.

`GET /kinoswarm/1/uploads/<lease>/<blob>` says how far it is, `PUT …/manifest` begins, `PUT …/<index>` brings a chunk. A
broken upload resumes, because nothing but the other side's answer says what is there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_protocol.errors import LocalError, Unreachable
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.limits import CHUNKS_IN_FLIGHT
from kinoswarm_protocol.manifest import BlobManifest
from kinoswarm_protocol.uploads import MAX_UPLOAD_STATE_BYTES, UploadState, read_upload_state

Exchange = Callable[[str, str, int, bytes | None], Awaitable[bytes]]
"""(method, path, most bytes of the answer, body): the answer of one coordinator. Raises Unreachable or Refused."""

Sending = Callable[[int], Awaitable[None]]
"""Waits until so many bytes may be sent; a rate cap."""


class HttpUpload:
    """One blob of ours on its way to one coordinator."""

    def __init__(
        self, exchange: Exchange, store: BlobStore, lease_id: LeaseId, blob: BlobId
    ) -> None:
        self._exchange = exchange
        self._store = store
        self._blob = blob
        self._path = f"/uploads/{lease_id}/{blob}"

    async def bring(self, sending: Sending) -> None:
        """Return when the coordinator has the whole blob, verified.

        Raises Unreachable or Refused (nobody waits for it, or it is too large); LocalError when it is not here.
        """
        raw = await asyncio.to_thread(self._store.manifest_bytes, self._blob)
        if raw is None:
            raise LocalError(f"blob {self._blob[:12]}… is gone from {self._store.root}")
        manifest = await asyncio.to_thread(self._store.manifest, self._blob)
        state = await self._ask(manifest, "GET", "")
        if not state.complete and not state.manifest_here:
            state = await self._ask(manifest, "PUT", "/manifest", raw)
        before = manifest.num_chunks + 1
        while not state.complete:
            missing = sum(gap.count for gap in state.gaps)
            if missing >= before:
                raise Unreachable(
                    "the coordinator takes chunks of the result, but keeps none of them"
                )
            before = missing
            await self._send_gaps(manifest, state, sending)
            state = await self._ask(manifest, "GET", "")

    async def _ask(
        self, manifest: BlobManifest, method: str, path: str, content: bytes | None = None
    ) -> UploadState:
        raw = await self._exchange(method, self._path + path, MAX_UPLOAD_STATE_BYTES, content)
        return read_upload_state(raw, manifest)

    async def _send_gaps(
        self, manifest: BlobManifest, state: UploadState, sending: Sending
    ) -> None:
        indexes = [i for gap in state.gaps for i in range(gap.first, gap.first + gap.count)]
        for start in range(0, len(indexes), CHUNKS_IN_FLIGHT):
            await self._send_together(manifest, indexes[start : start + CHUNKS_IN_FLIGHT], sending)

    async def _send_together(
        self, manifest: BlobManifest, indexes: Sequence[int], sending: Sending
    ) -> None:
        """Several at once hide the round trip; all of them have ended when this returns."""
        sent = (self._send(manifest, index, sending) for index in indexes)
        for result in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _send(self, manifest: BlobManifest, index: int, sending: Sending) -> None:
        start, size = index * manifest.chunk_bytes, manifest.chunk_size(index)
        data = await asyncio.to_thread(self._store.read_range, self._blob, start, size)
        await sending(size)
        await self._exchange("PUT", f"{self._path}/{index}", 0, data)
