"""One blob on its way here from several peers at once, every chunk verified. Owns the conversations with them.

Who is asked for what is the piece picker's decision. A peer that fails costs what it owed, never the download: it
rests and is asked again, unless it broke the rules.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.host import Host
from kinoswarm_network.link import OnProgress
from kinoswarm_network.partial_blob import PartialBlob
from kinoswarm_network.piece_picker import Fault, PiecePicker
from kinoswarm_network.rate_caps import Caps
from kinoswarm_network.replies import receive_reply
from kinoswarm_network.stream_frames import AskChunk, AskHave, AskManifest, Goodbye
from kinoswarm_network.streams import Stream
from kinoswarm_network.traffic import Counters
from kinoswarm_protocol.codec import encode
from kinoswarm_protocol.errors import (
    HashMismatch,
    LimitExceeded,
    MalformedBytes,
    RemoteError,
    Unreachable,
)
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MAX_MANIFEST_BYTES, PROVIDERS_AT_ONCE
from kinoswarm_protocol.manifest import decode_manifest
from kinoswarm_protocol.messages import ProviderHint

_LOOK_AGAIN_S = 0.1
_HAVE_EVERY_S = 0.5
_IDLE_S = 2.0
"""A peer that has nothing useful for this long makes room for one that waits."""

_WRITE_BACK_EVERY = 32
"""Chunks."""

_LOOK_FOR_MORE_S = 10.0
_FIRST_LOOK_S = 5.0
"""So long the DHT may take before known providers alone decide whether there is hope."""

Find = Callable[[BlobId], Awaitable[Sequence[ProviderHint]]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Means:
    """What every download of a process uses."""

    host: Host
    store: BlobStore
    counters: Counters
    protocol: str
    chunk_timeout_s: float
    caps: Caps
    find: Find
    """Asks the DHT who has a blob."""
    held: Callable[[BlobId], None]
    """Is told that a part of a blob is here and served."""


class Download:
    """One blob on its way. Providers may be added while it runs."""

    def __init__(self, means: Means, blob: BlobId, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.listeners: list[OnProgress] = []
        """One for each caller that waits."""
        self.is_stopping = False
        self.partial: PartialBlob | None = None
        self.blob = blob
        self.means = means
        self.picker = PiecePicker(random.getrandbits(32))
        self.idle: set[str] = set()
        """Peers that hold nothing useful just now."""
        self._hints: dict[str, ProviderHint] = {}
        self._talking: dict[str, asyncio.Task[None]] = {}
        self._errors: dict[str, RemoteError] = {}
        self._begin_lock = asyncio.Lock()
        self._news = asyncio.Event()
        self._last_chunk_s = _now_s()
        self._is_looking = True
        self._unsynced = 0
        self._writing_back: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writing_back.set_result(None)
        self.task = asyncio.create_task(self._run())

    def add_providers(self, providers: Sequence[ProviderHint]) -> None:
        """Also ask these, unless they are known already or this node itself."""
        for provider in providers:
            if provider.peer not in self._hints and provider.peer != self.means.host.peer:
                self._hints[provider.peer] = provider
                self.picker.add_peer(provider.peer)
        self._news.set()

    def stop(self) -> None:
        """Nobody waits any more; what arrived stays for the next time."""
        self.is_stopping = True
        self.task.cancel()

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is here."""
        return self.partial is not None and not self.picker.num_missing

    def has_others_waiting(self) -> bool:
        """Whether a peer might be asked if another made room."""
        ready = self.picker.ready(_now_ms())
        is_full = len(self._talking) >= PROVIDERS_AT_ONCE
        return is_full and any(peer not in self._talking for peer in ready)

    async def begin(self, manifest_raw: bytes) -> PartialBlob:
        """Start or resume the files, once.

        Raises HashMismatch or MalformedBytes for a wrong manifest, LimitExceeded for a blob beyond the bound,
        LocalError.
        """
        async with self._begin_lock:
            if self.partial is None:
                self._require_bounded(manifest_raw)
                partial = await asyncio.to_thread(self.means.store.begin, self.blob, manifest_raw)
                self.picker.begin(partial.manifest.num_chunks, partial.missing)
                self.partial = partial
                self._tell(partial)
        return self.partial

    def _require_bounded(self, manifest_raw: bytes) -> None:
        size = decode_manifest(self.blob, manifest_raw).size_bytes
        if size > self.max_bytes:
            raise LimitExceeded(
                f"blob {self.blob[:12]}… has {size} bytes, at most {self.max_bytes} are taken"
            )

    async def keep(self, partial: PartialBlob, peer: str, index: int, data: bytes) -> None:
        """Verify and write a chunk that `peer` sent. Raises HashMismatch, LocalError."""
        try:
            await asyncio.to_thread(partial.write_chunk, index, data)
        except HashMismatch as error:
            self.means.counters.chunks_refused += 1
            raise HashMismatch(f"{peer} sent a wrong chunk: {error}") from error
        self._write_back_sometimes(partial)
        self.picker.arrived(peer, index, _now_ms())
        self.means.held(self.blob)
        self._last_chunk_s = _now_s()
        self._tell(partial)
        if self.is_complete:
            self._news.set()

    def _write_back_sometimes(self, partial: PartialBlob) -> None:
        """Every so many chunks, beside the download: at its end the disk is not far behind."""
        self._unsynced += 1
        if self._unsynced < _WRITE_BACK_EVERY or not self._writing_back.done():
            return
        self._unsynced = 0
        self._writing_back = asyncio.ensure_future(asyncio.to_thread(partial.write_back))

    async def _run(self) -> Path:
        store = self.means.store
        try:
            if raw := await asyncio.to_thread(store.partial_manifest, self.blob):
                with suppress(
                    HashMismatch, MalformedBytes
                ):  # torn by a power cut: ask for it again
                    await self.begin(raw)
            await self._ask_until_complete()
            assert self.partial is not None
            return await asyncio.to_thread(store.finish, self.partial)
        finally:
            await asyncio.wait({self._writing_back})
            if self.partial is not None:
                self.partial.close()

    async def _look_for_more(self) -> None:
        """Ask the DHT for providers, again and again: others get the blob while it comes here."""
        while True:
            begun_s = _now_s()
            try:
                async with asyncio.timeout(None if not self._is_looking else _FIRST_LOOK_S):
                    self.add_providers(await self.means.find(self.blob))
            except (RemoteError, TimeoutError) as error:
                _log.info("looking for providers of %s: %s", self.blob, error or "no answer yet")
            self._is_looking = False
            self._news.set()
            await asyncio.sleep(max(0.0, begun_s + _LOOK_FOR_MORE_S - _now_s()))

    async def _ask_until_complete(self) -> None:
        looking = asyncio.create_task(self._look_for_more())
        try:
            while not self.is_complete:
                self._talk_to_more()
                if self._is_hopeless():
                    raise self._nobody()
                await self._wait_for_news()
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            for task in self._talking.values():
                task.cancel()
            await asyncio.gather(*self._talking.values(), return_exceptions=True)

    def _talk_to_more(self) -> None:
        if not self._talking and self.picker.others_are_tried_out(()):
            return
        for peer in self.picker.ready(_now_ms()):
            if len(self._talking) < PROVIDERS_AT_ONCE and peer not in self._talking:
                conversation = Conversation(self, self._hints[peer])
                self._talking[peer] = asyncio.create_task(self._talk(conversation))

    def _is_hopeless(self) -> bool:
        """Whether nobody is left to ask, or those that answer have had nothing useful for too long."""
        if (
            self._is_looking
            or self._talking.keys() - self.idle
            or not self.picker.others_are_tried_out(self.idle)
        ):
            return False
        return not self.idle or _now_s() - self._last_chunk_s > self.means.chunk_timeout_s

    async def _wait_for_news(self) -> None:
        """Until the last chunk is here, a conversation ends or a peer has rested. Raises what broke on our side."""
        news = asyncio.create_task(self._news.wait())
        try:
            await asyncio.wait(
                {news, *self._talking.values()},
                timeout=self._longest_wait_s(),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            news.cancel()
        self._news.clear()
        for peer, task in list(self._talking.items()):
            if task.done():
                del self._talking[peer]
                task.result()

    def _longest_wait_s(self) -> float:
        """Short while a peer rests or has nothing useful: time alone changes what is to be done."""
        has_room = len(self._talking) < min(PROVIDERS_AT_ONCE, len(self._hints))
        return _LOOK_AGAIN_S if has_room or self.idle else self.means.chunk_timeout_s

    async def _talk(self, conversation: "Conversation") -> None:
        """One conversation to its end. A peer's faults are noted, never raised."""
        peer = conversation.peer
        try:
            await conversation.run()
            self.picker.rest(peer, _now_ms())
        except RemoteError as error:
            hostile = isinstance(error, HashMismatch | MalformedBytes | LimitExceeded)
            fault = Fault.HOSTILE if hostile else Fault.PASSING
            what_follows = self.picker.failed(peer, fault, _now_ms())
            _log.info("provider %s of %s: %s; %s", peer, self.blob, error, what_follows)
            self._errors[peer] = error
        finally:
            self.idle.discard(peer)

    def _tell(self, partial: PartialBlob) -> None:
        for listener in self.listeners:
            listener(partial.done_bytes, partial.manifest.size_bytes)

    def _nobody(self) -> RemoteError:
        if len(self._errors) == 1 and not self.idle:
            return next(iter(self._errors.values()))
        reasons = [str(error) for error in self._errors.values()]
        if self.idle:
            reasons.append(
                f"{len(self.idle)} that answer lack the {self.picker.num_missing} chunks still wanted"
            )
        text = f"nobody gave blob {self.blob[:12]}…: {'; '.join(reasons) or 'no provider is known'}"
        only_wrong = {type(error) for error in self._errors.values()} == {HashMismatch}
        return HashMismatch(text) if only_wrong and not self.idle else Unreachable(text)


class Conversation:
    """One stream to one provider: asks ahead, takes what comes in order, and learns what the provider holds."""

    def __init__(self, download: Download, hint: ProviderHint) -> None:
        self.peer: str = hint.peer
        self._hint = hint
        self._download = download
        self._means = download.means
        self._picker = download.picker
        self._asked: deque[int | None] = deque()
        """Chunks that were asked for, in order; None is a map."""
        self._map_at_s = 0.0
        self._writing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until nothing is missing or others are to have a turn. Raises RemoteError for the peer, LocalError for us."""
        means, hint = self._means, self._hint
        stream = await means.host.open_stream(hint.peer, list(hint.addresses), means.protocol)
        async with stream:
            try:
                partial = self._download.partial or await self._begin(stream)
                await self._trade(stream, partial)
            except Unreachable:
                await self._written()  # a wrong chunk says more about the peer than that it left
                raise
            finally:
                if self._writing is not None:
                    await asyncio.gather(self._writing, return_exceptions=True)
            await stream.send(encode(Goodbye()), means.chunk_timeout_s)

    async def _begin(self, stream: Stream) -> PartialBlob:
        await stream.send(
            encode(AskManifest(blob=self._download.blob)), self._means.chunk_timeout_s
        )
        raw = await receive_reply(stream, MAX_MANIFEST_BYTES, self._means.chunk_timeout_s)
        return await self._download.begin(raw)

    async def _trade(self, stream: Stream, partial: PartialBlob) -> None:
        useful_at_s = _now_s()
        while self._picker.num_missing:
            await self._ask_ahead(stream, partial)
            if self._asked:
                useful_at_s = _now_s()
                self._download.idle.discard(self.peer)
                await self._take_reply(stream, partial)
            elif self._writing is not None:
                await self._written()
            else:
                self._download.idle.add(self.peer)
                if _now_s() - useful_at_s > _IDLE_S and self._download.has_others_waiting():
                    return
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def _ask_ahead(self, stream: Stream, partial: PartialBlob) -> None:
        timeout_s = self._means.chunk_timeout_s
        is_old = _now_s() - self._map_at_s > _HAVE_EVERY_S
        if is_old and not self._picker.holds_all(self.peer) and None not in self._asked:
            self._asked.append(None)
            await stream.send(encode(AskHave(blob=self._download.blob)), timeout_s)
        while (pick := self._picker.pick(self.peer, _now_ms())) is not None:
            await self._means.caps.fetching(partial.manifest.chunk_size(pick.index))
            self._asked.append(pick.index)
            ask = AskChunk(blob=self._download.blob, index=pick.index)
            await stream.send(encode(ask), timeout_s)
            self._picker.sent(self.peer, pick.index, _now_ms())

    async def _take_reply(self, stream: Stream, partial: PartialBlob) -> None:
        index = self._asked[0]
        if index is None:
            await self._take_map(stream, partial.manifest.num_chunks)
        else:
            await self._take_chunk(stream, partial, index)
        self._asked.popleft()

    async def _take_map(self, stream: Stream, num_chunks: int) -> None:
        size = -(-num_chunks // 8)
        raw = await receive_reply(stream, size, self._means.chunk_timeout_s)
        have = int.from_bytes(raw, "little")
        if len(raw) != size or have >> num_chunks:
            raise MalformedBytes(
                f"{self.peer} sent a map of {len(raw)} bytes, expected {size} for {num_chunks} chunks"
            )
        self._map_at_s = _now_s()
        self._picker.has(self.peer, have)

    async def _take_chunk(self, stream: Stream, partial: PartialBlob, index: int) -> None:
        """The next chunk is received while the one before is verified and written."""
        size = partial.manifest.chunk_size(index)
        data = await receive_reply(stream, size, self._means.chunk_timeout_s)
        self._means.counters.bytes_down += len(data)
        await self._written()
        self._writing = asyncio.create_task(self._download.keep(partial, self.peer, index, data))

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _now_ms() -> int:
    return int(_now_s() * 1_000)
