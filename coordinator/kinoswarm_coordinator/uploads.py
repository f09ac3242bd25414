"""Blobs of contributions that nodes bring over HTTP(S). Owns what is wanted, its bounds and the open downloads.

Nothing is believed: a blob is wanted only while a received contribution names it, its size is bounded by the base that
the lease named, and every chunk is verified before it is kept. So nobody needs to prove who brings the bytes.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kinoswarm_coordinator.state import SwarmState
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.partial_blob import PartialBlob
from kinoswarm_protocol.errors import Code, LimitExceeded, MalformedBytes, Refused
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.limits import CHUNK_BYTES, MIB
from kinoswarm_protocol.manifest import decode_manifest
from kinoswarm_protocol.messages import TrainOrder, TrainOutcome
from kinoswarm_protocol.uploads import UploadState, gaps_of

MAX_OPEN_UPLOADS = 64
"""Uploads whose files are open at once; the one that rests longest is closed, and resumes when it goes on."""

UPLOAD_PAUSE_S = 60.0
"""An upload that brought nothing new for this long counts as given up."""

PARTIAL_KEPT_S = 86_400.0
"""What a broken upload left is kept this long for its sender to go on: a day offline is usual at home."""

_LARGEST_BY_BASE = 2
_HEADER_BYTES = MIB


def upload_limit(state: SwarmState, lease_id: LeaseId, blob: BlobId, base_bytes: int) -> int:
    """Bytes that `blob` may have; 0 when no contribution under this lease waits for it.

    `base_bytes` is the size of the lease's base checkpoint: a delta has the same numbers in fewer bits.
    """
    work = state.work.get(lease_id)
    if work is None or lease_id not in state.unsettled:
        return 0
    if not isinstance(work.outcome, TrainOutcome) or work.outcome.delta != blob:
        return 0
    return min(work.outcome.delta_bytes, _LARGEST_BY_BASE * base_bytes + _HEADER_BYTES)


def _settled_among(state: SwarmState, blobs: set[BlobId]) -> set[BlobId]:
    """Those of `blobs` that contributions name, all of them settled."""
    if not blobs:
        return set()
    named: set[BlobId] = set()
    waited_for: set[BlobId] = set()
    for lease_id, work in state.work.items():
        if isinstance(work.outcome, TrainOutcome) and work.outcome.delta in blobs:
            found = waited_for if lease_id in state.unsettled else named
            found.add(BlobId(work.outcome.delta))
    return named - waited_for


@dataclass
class _Open:
    """One upload under way. `turn` keeps opening, writing and closing apart."""

    lease_id: LeaseId
    partial: PartialBlob
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    grew_at_s: float = 0.0


@dataclass(kw_only=True)
class Uploads:
    """The coordinator's side of every upload."""

    store: BlobStore
    state: Callable[[], SwarmState]
    on_complete: Callable[[LeaseId], None] = lambda lease_id: None
    clock: Callable[[], float] = time.monotonic
    max_open: int = MAX_OPEN_UPLOADS
    _open: dict[BlobId, _Open] = field(default_factory=dict)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    def is_coming(self, lease_id: LeaseId) -> bool:
        """Whether somebody is bringing this contribution's blob right now."""
        since_s = self.clock() - UPLOAD_PAUSE_S
        return any(o.lease_id == lease_id and o.grew_at_s > since_s for o in self._open.values())

    async def wants(self, lease_id: LeaseId, blob: BlobId) -> bool:
        """Whether anything of a blob is to be sent: asked before a body is read. False when all of it is here.

        Raises Refused when no contribution under this lease waits for it.
        """
        if await asyncio.to_thread(self.store.path_of, blob):
            return False
        await self._require_wanted(lease_id, blob)
        return True

    async def progress(self, lease_id: LeaseId, blob: BlobId) -> UploadState:
        """What is here already. Raises Refused when the blob is not wanted."""
        self._let_go_of_unwanted()
        if not await self.wants(lease_id, blob):
            return UploadState(complete=True, manifest_here=True, gaps=[])
        upload = self._open.get(blob) or await self._reopened(lease_id, blob)
        if upload is None:
            return UploadState(complete=False, manifest_here=False, gaps=[])
        return UploadState(complete=False, manifest_here=True, gaps=gaps_of(upload.partial.missing))

    async def take_manifest(self, lease_id: LeaseId, blob: BlobId, raw: bytes) -> UploadState:
        """Begin, or find begun. Raises Refused, HashMismatch, MalformedBytes, LimitExceeded; LocalError (disk full)."""
        limit = await self._require_wanted(lease_id, blob)
        manifest = decode_manifest(blob, raw)
        if manifest.size_bytes > limit:
            raise LimitExceeded(
                f"the blob has {manifest.size_bytes} bytes, at most {limit} fit this contribution"
            )
        if manifest.chunk_bytes != CHUNK_BYTES:
            raise MalformedBytes(f"chunks must have {CHUNK_BYTES} bytes to be uploaded")
        upload = await self._begin(lease_id, blob, raw)
        if not upload.partial.missing:
            await self._finish(upload)
        return await self.progress(lease_id, blob)

    async def take_chunk(self, lease_id: LeaseId, blob: BlobId, index: int, data: bytes) -> None:
        """Verify and keep one chunk; the last one makes the blob. Raises Refused, HashMismatch, LocalError."""
        if not await self.wants(lease_id, blob):
            return  # a repeated request whose answer was lost
        upload = self._open.get(blob) or await self._reopened(lease_id, blob)
        if upload is None:
            raise Refused(Code.NOT_FOUND, "send the blob's manifest first")
        async with upload.turn:
            if self._open.get(blob) is not upload:
                return  # it was completed by another request
            before = upload.partial.done_bytes
            await asyncio.to_thread(upload.partial.write_chunk, index, data)
            if upload.partial.done_bytes > before:
                upload.grew_at_s = self.clock()
            if not upload.partial.missing:
                await self._finish(upload)

    async def sweep(self, now_s: float) -> list[BlobId]:
        """Remove what broken uploads left: at once when their contribution is settled, else a day after they rested.

        `now_s` is the wall clock, as the disk's times are. Returns what was removed.
        """
        left = await asyncio.to_thread(self.store.partials)
        idle = {blob: at_s for blob, at_s in left.items() if blob not in self._open}
        settled = _settled_among(self.state(), set(idle))
        gone = [b for b, at_s in idle.items() if b in settled or now_s - at_s > PARTIAL_KEPT_S]
        return [b for b in gone if await asyncio.to_thread(self.store.drop_partial, b)]

    def close(self) -> None:
        """Let go of all files; uploads resume after a restart."""
        while self._open:
            self._open.popitem()[1].partial.close()

    async def _require_wanted(self, lease_id: LeaseId, blob: BlobId) -> int:
        state = self.state()
        limit = upload_limit(state, lease_id, blob, await self._base_bytes(state, lease_id))
        if not limit:
            raise Refused(
                Code.UNKNOWN_LEASE,
                f"no contribution under lease {lease_id[:8]}… waits for this blob: submit it first",
            )
        return limit

    async def _base_bytes(self, state: SwarmState, lease_id: LeaseId) -> int:
        lease = state.leases.get(lease_id)
        if lease is None or not isinstance(lease.order, TrainOrder):
            return 0
        path = await asyncio.to_thread(self.store.path_of, BlobId(lease.order.base))
        return path.stat().st_size if path else 0

    async def _reopened(self, lease_id: LeaseId, blob: BlobId) -> _Open | None:
        """An upload from before a restart, or one that was closed for others."""
        raw = await asyncio.to_thread(self.store.partial_manifest, blob)
        return await self._begin(lease_id, blob, raw) if raw is not None else None

    async def _begin(self, lease_id: LeaseId, blob: BlobId, raw: bytes) -> _Open:
        async with self._opening:
            if other := self._open.get(blob):  # begun by another request meanwhile
                return other
            partial = await asyncio.to_thread(self.store.begin, blob, raw)
            upload = self._open[blob] = _Open(lease_id, partial, grew_at_s=self.clock())
            self._make_room(upload)
            return upload

    async def _finish(self, upload: _Open) -> None:
        self._open.pop(upload.partial.blob, None)
        await asyncio.to_thread(self.store.finish, upload.partial)
        self.on_complete(upload.lease_id)

    def _make_room(self, newest: _Open) -> None:
        idle = sorted(
            (o for o in self._open.values() if o is not newest and not o.turn.locked()),
            key=lambda upload: upload.grew_at_s,
        )
        for upload in idle[: max(0, len(self._open) - self.max_open)]:
            del self._open[upload.partial.blob]
            upload.partial.close()

    def _let_go_of_unwanted(self) -> None:
        """What no contribution waits for any more leaves nothing on the disk."""
        unsettled = self.state().unsettled
        gone = [
            o for o in self._open.values() if o.lease_id not in unsettled and not o.turn.locked()
        ]
        for upload in gone:
            del self._open[upload.partial.blob]
            upload.partial.discard()
