"""Lets blobs go that nothing needs any more: what was forgotten, refused or overtaken. Owns the order of steps.

What is forgotten is logged first and goes afterwards, so a kill at any moment loses nothing that a decision may name:
what is left over goes in the next round. Each batch is looked at again in the moment before it goes, because a
contribution may name bytes anew that were brought before; who takes a blob into use pins it and looks once more
(intake.py). Once forgotten, always: a leader that was paused and wakes up lets go of nothing that the next one needs.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.needed_blobs import garbage_among, needed_blobs
from kinoswarm_coordinator.retention import Keep, forgettable
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.tidy_lock import may_tidy
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_protocol.errors import KinoswarmError
from kinoswarm_protocol.ids import BlobId

_log = structlog.get_logger("tidying")
_BATCH = 256
"""Blobs that go between two looks at what is needed, each of which may hold the event loop for some 30 ms."""


@dataclass(frozen=True)
class Gone:
    """What one round let go; bytes are those in the folder."""

    num_blobs: int = 0
    size_bytes: int = 0


@dataclass(kw_only=True)
class Tidier:
    """One coordinator's store."""

    service: Service
    store: BlobStore
    folder: SwarmFolder
    keep: Keep
    rest: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self, every_s: float) -> None:
        """A round now and every so many seconds until cancelled; 0 is never."""
        while every_s:
            try:
                gone = await self.round()
            except (OSError, KinoswarmError) as error:
                _log.warning("not all could go", why=str(error))  # the next round goes on
            else:
                if gone.num_blobs:
                    _log.info("let go", num_blobs=gone.num_blobs, size_bytes=gone.size_bytes)
            await self.rest(every_s)

    async def round(self) -> Gone:
        """Forget what may be forgotten, then let everything go that is not needed.

        Raises OSError, or Unreachable of a storage that is away.
        """
        service = self.service
        state = service.journal.state
        events = forgettable(state, service.rules, self.keep, service.now_ms())
        if events:
            await service.record(events)
        await asyncio.to_thread(self._remove_folders, sorted(state.forgotten_releases))
        sizes = await asyncio.to_thread(self.store.sizes)
        garbage = await asyncio.to_thread(garbage_among, state, self._needed(), sizes)
        gone: list[BlobId] = []
        for start in range(0, len(garbage), _BATCH):
            with may_tidy(self.folder.tidy_lock) as may:
                if not may:
                    _log.info("a backup is being made; the rest goes in the next round")
                    break
                gone += await self._let_go(garbage[start : start + _BATCH])
        return Gone(len(gone), sum(sizes[blob] for blob in gone))

    async def _let_go(self, batch: list[BlobId]) -> list[BlobId]:
        """Unpin, look again, drop what nobody pinned meanwhile."""
        await asyncio.to_thread(self._pin, batch, False)
        needed = self._needed()
        await asyncio.to_thread(self._pin, [blob for blob in batch if blob in needed], True)
        doomed = [blob for blob in batch if blob not in needed]
        return await asyncio.to_thread(self._forget, doomed)

    def _needed(self) -> set[BlobId]:
        service = self.service
        return needed_blobs(service.journal.state, service.rules, service.in_force.blobs)

    def _pin(self, blobs: list[BlobId], pinned: bool) -> None:
        for blob in blobs:
            self.store.pin(blob, pinned)

    def _forget(self, blobs: list[BlobId]) -> list[BlobId]:
        gone = []
        for blob in blobs:
            if not self.store.is_pinned(blob):
                self.store.forget(blob)
                gone.append(blob)
        return gone

    def _remove_folders(self, releases: list[int]) -> None:
        for version in releases:
            shutil.rmtree(self.folder.releases / str(version), ignore_errors=True)
