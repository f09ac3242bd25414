"""Fetches blobs from peers, several at once, every chunk verified on arrival. Owns who is asked for which chunk.

A provider that sends a wrong chunk, stalls or ends early is given up for this download; what it still owed goes back to
the wanted chunks and the next provider takes its place.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.host import Host
from kinoswarm_network.link import OnProgress
from kinoswarm_network.partial_blob import PartialBlob
from kinoswarm_network.rate_caps import Caps
from kinoswarm_network.stream_frames import (
    AskChunk,
    AskManifest,
    Goodbye,
    No,
    blob_protocol,
    read_reply_head,
    refused,
)
from kinoswarm_network.streams import Stream
from kinoswarm_network.traffic import Counters
from kinoswarm_protocol.codec import encode
from kinoswarm_protocol.errors import HashMismatch, MalformedBytes, RemoteError, Unreachable
from kinoswarm_protocol.ids import BlobId, SwarmId
from kinoswarm_protocol.limits import (
    CHUNKS_IN_FLIGHT,
    MAX_BLOB_FRAME,
    MAX_MANIFEST_BYTES,
    PROVIDERS_AT_ONCE,
)
from kinoswarm_protocol.messages import ProviderHint

_log = logging.getLogger(__name__)


class Exchange:
    """All downloads of one process; asking twice for a blob joins the download that runs."""

    def __init__(
        self,
        host: Host,
        store: BlobStore,
        counters: Counters,
        swarm: SwarmId,
        chunk_timeout_s: float,
        caps: Caps,
    ) -> None:
        self.host = host
        self.store = store
        self.counters = counters
        self.protocol = blob_protocol(swarm)
        self.chunk_timeout_s = chunk_timeout_s
        self.caps = caps
        self._running: dict[BlobId, Download] = {}

    async def fetch(
        self, blob: BlobId, providers: Sequence[ProviderHint], on_progress: OnProgress
    ) -> Path:
        """The path of the complete, verified blob. Resumes what an earlier try left.

        Raises Unreachable with every provider's reason (or their common error type), LocalError when the disk is full.
        """
        if path := await asyncio.to_thread(self.store.path_of, blob):
            return path
        download = await self._download_of(blob)
        download.add_providers(providers)
        download.listeners.append(on_progress)
        try:
            return await asyncio.shield(download.task)
        finally:
            download.listeners.remove(on_progress)
            if not download.listeners:
                download.stop()

    async def _download_of(self, blob: BlobId) -> "Download":
        """The download of `blob` that runs, or a new one; never one that was just given up and still holds files."""
        while (download := self._running.get(blob)) is not None and download.is_stopping:
            await asyncio.wait({download.task})
        if download is None:
            download = self._running[blob] = Download(self, blob)
            download.task.add_done_callback(lambda _: self._running.pop(blob, None))
        return download


class Download:
    """One blob on its way. Providers may be added while it runs."""

    def __init__(self, exchange: Exchange, blob: BlobId) -> None:
        self.listeners: list[OnProgress] = []
        """One for each caller that waits."""
        self.is_stopping = False
        self._exchange = exchange
        self._blob = blob
        self._providers: deque[ProviderHint] = deque()
        self._known: set[str] = set()
        self._wanted: deque[int] = deque()
        self._errors: list[RemoteError] = []
        self._partial: PartialBlob | None = None
        self._manifest_lock = asyncio.Lock()
        self.task = asyncio.create_task(self._run())

    def add_providers(self, providers: Sequence[ProviderHint]) -> None:
        """Also ask these, unless they are known already."""
        for provider in providers:
            if provider.peer not in self._known:
                self._known.add(provider.peer)
                self._providers.append(provider)

    def stop(self) -> None:
        """Nobody waits any more; what arrived stays for the next time."""
        self.is_stopping = True
        self.task.cancel()

    async def _run(self) -> Path:
        store = self._exchange.store
        try:
            if raw := await asyncio.to_thread(store.partial_manifest, self._blob):
                with suppress(
                    HashMismatch, MalformedBytes
                ):  # torn by a power cut: ask for it again
                    await self._begin(raw)
            while self._partial is None or self._partial.missing:
                if not self._providers:
                    raise self._nobody()
                await self._ask_all_providers()
            return await asyncio.to_thread(store.finish, self._partial)
        finally:
            if self._partial is not None:
                self._partial.close()

    async def _ask_all_providers(self) -> None:
        """Ask until nothing is wanted or every provider had its turn; the good ones may be asked again."""
        good: list[ProviderHint] = []
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(PROVIDERS_AT_ONCE):
                    group.create_task(self._ask_providers(good))
        except ExceptionGroup as errors:
            raise errors.exceptions[
                0
            ] from None  # a full disk; a provider's faults never come this far
        self._providers.extend(good)

    async def _ask_providers(self, good: list[ProviderHint]) -> None:
        while self._providers and (self._partial is None or self._wanted):
            provider = self._providers.popleft()
            try:
                await self._ask_provider(provider)
                good.append(provider)
            except RemoteError as error:
                _log.info("provider %s of %s: %s", provider.peer, self._blob, error)
                self._errors.append(error)

    async def _ask_provider(self, provider: ProviderHint) -> None:
        exchange = self._exchange
        stream = await exchange.host.open_stream(
            provider.peer, list(provider.addresses), exchange.protocol
        )
        async with stream:
            async with self._manifest_lock:
                if self._partial is None:
                    await self._begin(await self._ask_manifest(stream))
            await self._take_chunks(stream)
            await stream.send(encode(Goodbye()), exchange.chunk_timeout_s)

    async def _begin(self, manifest_raw: bytes) -> None:
        self._partial = await asyncio.to_thread(
            self._exchange.store.begin, self._blob, manifest_raw
        )
        self._wanted.extend(self._partial.missing)
        self._tell()

    async def _ask_manifest(self, stream: Stream) -> bytes:
        ask = AskManifest(blob=self._blob)
        await stream.send(encode(ask), self._exchange.chunk_timeout_s)
        return await receive_reply(stream, MAX_MANIFEST_BYTES, self._exchange.chunk_timeout_s)

    async def _take_chunks(self, stream: Stream) -> None:
        """Take wanted chunks until none is left, asking some ahead. What is still owed at an error is wanted again."""
        owed: deque[int] = deque()
        try:
            while self._wanted or owed:
                while self._wanted and len(owed) < CHUNKS_IN_FLIGHT:
                    owed.append(self._wanted.popleft())
                    assert self._partial is not None
                    size = self._partial.manifest.chunk_size(owed[-1])
                    await self._exchange.caps.fetching(size)
                    ask = AskChunk(blob=self._blob, index=owed[-1])
                    await stream.send(encode(ask), self._exchange.chunk_timeout_s)
                await self._take_chunk(stream, owed[0])
                owed.popleft()
        finally:
            self._wanted.extendleft(reversed(owed))

    async def _take_chunk(self, stream: Stream, index: int) -> None:
        assert self._partial is not None
        size = self._partial.manifest.chunk_size(index)
        data = await receive_reply(stream, size, self._exchange.chunk_timeout_s)
        self._exchange.counters.bytes_down += len(data)
        try:
            await asyncio.to_thread(self._partial.write_chunk, index, data)
        except HashMismatch as error:
            self._exchange.counters.chunks_refused += 1
            raise HashMismatch(f"{stream.peer} sent a wrong chunk: {error}") from error
        self._tell()

    def _tell(self) -> None:
        assert self._partial is not None
        for listener in self.listeners:
            listener(self._partial.done_bytes, self._partial.manifest.size_bytes)

    def _nobody(self) -> RemoteError:
        kinds = {type(error) for error in self._errors}
        if len(kinds) == 1 and len(self._errors) == 1:
            return self._errors[0]
        reasons = "; ".join(str(error) for error in self._errors) or "no provider is known"
        text = f"nobody gave blob {self._blob[:12]}…: {reasons}"
        return HashMismatch(text) if kinds == {HashMismatch} else Unreachable(text)


async def receive_reply(stream: Stream, max_bytes: int, timeout_s: float) -> bytes:
    """The bytes of one reply. Raises Refused when the peer says no, MalformedBytes when it announces too much."""
    head = read_reply_head(await stream.receive(2 * MAX_BLOB_FRAME, timeout_s))
    if isinstance(head, No):
        raise refused(head)
    if head.size_bytes > max_bytes:
        raise MalformedBytes(
            f"{stream.peer} announces {head.size_bytes} bytes where at most {max_bytes} were asked for"
        )
    return await stream.receive_raw(head.size_bytes, timeout_s)
