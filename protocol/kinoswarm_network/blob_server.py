"""Serves our complete blobs to peers. Owns the answering side of blob streams; never sends what it does not have."""

import asyncio

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.rate_caps import Caps
from kinoswarm_network.stream_frames import (
    Ask,
    AskChunk,
    AskManifest,
    Goodbye,
    Sending,
    read_ask,
    refusal,
)
from kinoswarm_network.streams import Stream
from kinoswarm_network.traffic import Counters
from kinoswarm_protocol.codec import encode, frame
from kinoswarm_protocol.errors import Code, LocalError, Refused, RemoteError
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import CHUNK_TIMEOUT_S, MAX_BLOB_FRAME, STREAM_IDLE_TIMEOUT_S
from kinoswarm_protocol.manifest import BlobManifest

_MANIFESTS_KEPT = 16


class BlobServer:
    """Answers asks from the store, on as many streams as the host admits."""

    def __init__(self, store: BlobStore, counters: Counters, caps: Caps) -> None:
        self._store = store
        self._caps = caps
        self._counters = counters
        self._manifests: dict[BlobId, BlobManifest] = {}

    async def serve(self, stream: Stream) -> None:
        """Answer a peer's asks in order until it says goodbye. Raises RemoteError when it breaks the rules."""
        served = False
        while True:
            ask = read_ask(await stream.receive(MAX_BLOB_FRAME, STREAM_IDLE_TIMEOUT_S))
            if isinstance(ask, Goodbye):
                return
            served = await self._answer(stream, ask, served)

    async def _answer(self, stream: Stream, ask: Ask, served: bool) -> bool:
        try:
            data = await asyncio.to_thread(self._read, ask)
            if isinstance(ask, AskChunk):
                await self._caps.sending(len(data))
        except (RemoteError, LocalError) as error:
            await stream.send(refusal(error), CHUNK_TIMEOUT_S)
            return served
        head = frame(encode(Sending(size_bytes=len(data))))
        await stream.send_raw(head, CHUNK_TIMEOUT_S)
        await stream.send_raw(data, CHUNK_TIMEOUT_S)
        self._counters.bytes_up += len(data)
        is_chunk = isinstance(ask, AskChunk)
        self._counters.blobs_served += is_chunk and not served
        return served or is_chunk

    def _read(self, ask: Ask) -> bytes:
        match ask:
            case AskManifest():
                raw = self._store.manifest_bytes(ask.blob)
                if raw is None:
                    raise _not_here(ask.blob)
                return raw
            case AskChunk():
                return self._read_chunk(ask.blob, ask.index)
            case Goodbye():
                return b""

    def _read_chunk(self, blob: BlobId, index: int) -> bytes:
        manifest = self._manifests.get(blob)
        if manifest is None:
            if not self._store.has(blob):
                raise _not_here(blob)
            manifest = self._store.manifest(blob)
            if len(self._manifests) >= _MANIFESTS_KEPT:
                self._manifests.clear()
            self._manifests[blob] = manifest
        size = manifest.chunk_size(index)
        try:
            return self._store.read_range(blob, index * manifest.chunk_bytes, size)
        except LocalError:
            del self._manifests[blob]
            raise _not_here(blob) from None


def _not_here(blob: BlobId) -> Refused:
    return Refused(Code.BLOB_UNAVAILABLE, f"blob {blob[:12]}… is not here (any more)")
