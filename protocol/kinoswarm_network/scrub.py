"""Reads stored blobs again, slowly, and sends rotten ones back to be fetched. Owns the pace and the order; no network.

A disk that flips bits would otherwise be noticed only by those who are served wrong chunks. Reading does not count as a
use, so what eviction takes first stays the same.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.traffic import Counters
from kinoswarm_protocol.errors import HashMismatch, LocalError, RemoteError
from kinoswarm_protocol.ids import BlobId

ROUND_EVERY_S = 3_600.0
"""From the end of one round through the store to the next."""

Repair = Callable[[BlobId], Awaitable[object]]
_log = logging.getLogger(__name__)


class Scrub:
    """One store's check. `repair` fetches a blob whose good chunks are in place."""

    def __init__(
        self, store: BlobStore, counters: Counters, bytes_per_s: int, repair: Repair
    ) -> None:
        self._store = store
        self._counters = counters
        self._bytes_per_s = bytes_per_s
        self._repair = repair

    async def run(self) -> None:
        """Round after round, until cancelled."""
        while True:
            await self.one_round()
            await asyncio.sleep(ROUND_EVERY_S)

    async def one_round(self) -> list[BlobId]:
        """Check every blob once; the damaged ones, for which a repair was tried."""
        damaged = []
        for stored in await asyncio.to_thread(self._store.blobs):
            if await self._is_damaged(stored.blob):
                damaged.append(stored.blob)
                await self._send_to_repair(stored.blob)
        return damaged

    async def _is_damaged(self, blob: BlobId) -> bool:
        """Whether a chunk or the manifest is not what the blob's name promises; one that is gone meanwhile is not."""
        try:
            manifest = await asyncio.to_thread(self._store.manifest_on_disk, blob)
            if manifest is None:
                return False
            for index in range(manifest.num_chunks):
                size = manifest.chunk_size(index)
                await asyncio.to_thread(self._store.check_chunk, blob, manifest, index)
                await asyncio.sleep(size / self._bytes_per_s)
        except HashMismatch as error:
            _log.warning("blob %s is damaged on this disk: %s", blob, error)
            return True
        except LocalError as error:
            _log.info("blob %s was not checked to its end: %s", blob, error)
        return False

    async def _send_to_repair(self, blob: BlobId) -> None:
        self._counters.blobs_damaged += 1
        try:
            await asyncio.to_thread(self._store.unverify, blob)
            await self._repair(blob)
        except (LocalError, RemoteError) as error:
            _log.warning("blob %s is fetched again when it is needed: %s", blob, error)
        else:
            _log.warning("blob %s was fetched again and is whole", blob)
