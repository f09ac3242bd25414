"""Serves our blobs to peers, and the verified chunks of those that are on their way here.

Owns the answering side of blob streams; never sends what it does not have.
"""

import asyncio
from collections.abc import Callable, Iterable

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.partial_blob import PartialBlob
from kinoswarm_network.piece_picker import map_of
from kinoswarm_network.rate_caps import Caps
from kinoswarm_network.stream_frames import (
    AskChunk,
    AskHave,
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
Ask = AskManifest | AskChunk | AskHave


class BlobServer:
    """Answers asks from the store, on as many streams as the host admits."""

    def __init__(
        self,
        store: BlobStore,
        counters: Counters,
        caps: Caps,
        partial_of: Callable[[BlobId], PartialBlob | None],
    ) -> None:
        """`partial_of` is the download of a blob that runs in this process, if any."""
        self._store = store
        self._partial_of = partial_of
        self._caps = caps
        self._counters = counters
        self._manifests: dict[BlobId, BlobManifest] = {}

    async def serve(self, stream: Stream) -> None:
        """Answer a peer's asks in order until it says goodbye. Raises RemoteError when it breaks the rules.

        The next answer is read from the disk while the one before is sent: two chunks a stream are in memory.
        """
        sending, served = _done(False), False
        try:
            while True:
                ask = read_ask(await stream.receive(MAX_BLOB_FRAME, STREAM_IDLE_TIMEOUT_S))
                if isinstance(ask, Goodbye):
                    await sending
                    return
                answer = await self._prepared(ask)
                served = await sending
                sending = asyncio.ensure_future(self._answer(stream, ask, answer, served))
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _prepared(self, ask: Ask) -> bytes | Exception:
        try:
            return await asyncio.to_thread(self._read, ask)
        except (RemoteError, LocalError) as error:
            return error

    async def _answer(
        self, stream: Stream, ask: Ask, data: bytes | Exception, served: bool
    ) -> bool:
        try:
            if isinstance(data, Exception):
                raise data
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
        partial = self._partial_of(ask.blob)
        if partial is not None and (data := _read_partial(partial, ask)) is not None:
            return data
        match ask:
            case AskManifest():
                raw = self._store.manifest_bytes(ask.blob)
                if raw is None:
                    raise _not_here(ask.blob)
                return raw
            case AskChunk():
                return self._read_chunk(ask.blob, ask.index)
            case AskHave():
                num_chunks = self._manifest(ask.blob).num_chunks
                return have_bytes(range(num_chunks), num_chunks)

    def _read_chunk(self, blob: BlobId, index: int) -> bytes:
        manifest = self._manifest(blob)
        size = manifest.chunk_size(index)
        try:
            return self._store.read_range(blob, index * manifest.chunk_bytes, size)
        except LocalError:
            self._manifests.pop(blob, None)
            raise _not_here(blob) from None

    def _manifest(self, blob: BlobId) -> BlobManifest:
        manifest = self._manifests.get(blob)
        if manifest is None:
            if not self._store.has(blob):
                raise _not_here(blob)
            manifest = self._store.manifest(blob)
            if len(self._manifests) >= _MANIFESTS_KEPT:
                self._manifests.clear()
            self._manifests[blob] = manifest
        return manifest


def have_bytes(indexes: Iterable[int], num_chunks: int) -> bytes:
    """The reply to an AskHave; see there."""
    return map_of(indexes, num_chunks).to_bytes(-(-num_chunks // 8), "little")


def _done(value: bool) -> "asyncio.Future[bool]":
    future = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


def _read_partial(partial: PartialBlob, ask: Ask) -> bytes | None:
    match ask:
        case AskManifest():
            return partial.manifest_raw
        case AskHave():
            return have_bytes(partial.have(), partial.manifest.num_chunks)
        case AskChunk():
            return partial.read_chunk(ask.index)


def _not_here(blob: BlobId) -> Refused:
    return Refused(Code.BLOB_UNAVAILABLE, f"blob {blob[:12]}… is not here (any more)")
