"""One blob over light streams: chunk by chunk, each verified on arrival; resumes. Owns whom to ask next.

One provider at a time, the next one when it fails: a visitor with one download has no need for more, and a wrong byte
still costs one chunk.
"""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trio

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.light.host import LightHost
from kinoswarm_network.light.stream import LightStream
from kinoswarm_network.link import OnProgress
from kinoswarm_network.partial_blob import PartialBlob
from kinoswarm_network.stream_frames import AskChunk, AskManifest, Goodbye, blob_protocol
from kinoswarm_protocol.codec import encode
from kinoswarm_protocol.errors import HashMismatch, MalformedBytes, RemoteError, Unreachable
from kinoswarm_protocol.ids import BlobId, SwarmId
from kinoswarm_protocol.limits import CHUNKS_IN_FLIGHT, MAX_MANIFEST_BYTES
from kinoswarm_protocol.messages import ProviderHint

T = TypeVar("T")


class LightFetch:
    """Fetches blobs into a store."""

    def __init__(
        self, host: LightHost, store: BlobStore, swarm: SwarmId, chunk_timeout_s: float
    ) -> None:
        self._host = host
        self._store = store
        self._protocol = blob_protocol(swarm)
        self._chunk_timeout_s = chunk_timeout_s

    async def fetch(
        self, blob: BlobId, providers: Sequence[ProviderHint], on_progress: OnProgress
    ) -> Path:
        """The path of the complete, verified blob.

        Raises the only provider's error, Unreachable with everybody's reasons, or LocalError when the disk is full.
        """
        if path := await _in_thread(self._store.path_of, blob):
            return path
        errors: list[RemoteError] = []
        for provider in providers:
            try:
                return await self._fetch_from(provider, blob, on_progress)
            except RemoteError as error:
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        reasons = "; ".join(map(str, errors)) or "no provider is known"
        raise Unreachable(f"nobody gave blob {blob[:12]}…: {reasons}")

    async def _fetch_from(
        self, provider: ProviderHint, blob: BlobId, on_progress: OnProgress
    ) -> Path:
        stream = await self._host.open_stream(
            provider.peer, list(provider.addresses), self._protocol
        )
        try:
            partial = await self._begin(stream, blob)
            try:
                await self._take_chunks(stream, partial, on_progress)
                await stream.send(encode(Goodbye()), self._chunk_timeout_s)
                return await _in_thread(self._store.finish, partial)
            finally:
                partial.close()
        finally:
            await stream.close()

    async def _begin(self, stream: LightStream, blob: BlobId) -> PartialBlob:
        """What an earlier try left, or what this provider's manifest begins."""
        raw = await _in_thread(self._store.partial_manifest, blob)
        if raw is not None:
            try:
                return await _in_thread(self._store.begin, blob, raw)
            except (HashMismatch, MalformedBytes):
                pass  # torn by a power cut: ask for it again
        await stream.send(encode(AskManifest(blob=blob)), self._chunk_timeout_s)
        raw = await stream.receive_reply(MAX_MANIFEST_BYTES, self._chunk_timeout_s)
        return await _in_thread(self._store.begin, blob, raw)

    async def _take_chunks(
        self, stream: LightStream, partial: PartialBlob, on_progress: OnProgress
    ) -> None:
        wanted, owed = deque(partial.missing), deque[int]()
        while wanted or owed:
            while wanted and len(owed) < CHUNKS_IN_FLIGHT:
                owed.append(wanted.popleft())
                ask = AskChunk(blob=partial.blob, index=owed[-1])
                await stream.send(encode(ask), self._chunk_timeout_s)
            size = partial.manifest.chunk_size(owed[0])
            data = await stream.receive_reply(size, self._chunk_timeout_s)
            try:
                await _in_thread(partial.write_chunk, owed.popleft(), data)
            except HashMismatch as error:
                raise HashMismatch(f"{stream.peer} sent a wrong chunk: {error}") from error
            on_progress(partial.done_bytes, partial.manifest.size_bytes)


async def _in_thread(work: Callable[..., T], *arguments: object) -> T:
    """What `work` returns; it blocks on the disk."""
    result: T = await trio.to_thread.run_sync(work, *arguments)
    return result
