"""All downloads of one process. Owns which blobs are on their way here and who waits for them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from kinoswarm_network.download import Download, Means
from kinoswarm_network.link import OnProgress
from kinoswarm_network.partial_blob import PartialBlob
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MAX_BLOB_BYTES
from kinoswarm_protocol.messages import ProviderHint


class Exchange:
    """All downloads of one process; asking twice for a blob joins the download that runs."""

    def __init__(self, means: Means) -> None:
        self.store = means.store
        self._means = means
        self._running: dict[BlobId, Download] = {}

    async def fetch(
        self,
        blob: BlobId,
        providers: Sequence[ProviderHint],
        on_progress: OnProgress,
        max_bytes: int = MAX_BLOB_BYTES,
    ) -> Path:
        """The path of the complete, verified blob. Resumes what an earlier try left.

        Raises Unreachable with every provider's reason (or their common error type), LimitExceeded when it has more
        than `max_bytes`, LocalError when the disk is full.
        """
        if path := await asyncio.to_thread(self.store.path_of, blob):
            return path
        download = await self._download_of(blob, max_bytes)
        download.add_providers(providers)
        download.listeners.append(on_progress)
        try:
            return await asyncio.shield(download.task)
        finally:
            download.listeners.remove(on_progress)
            if not download.listeners:
                download.stop()

    async def _download_of(self, blob: BlobId, max_bytes: int) -> "Download":
        """The download of `blob` that runs, or a new one.

        Never one that was just given up and still holds files, or that would refuse what this caller takes.
        """
        while (download := self._running.get(blob)) is not None and (
            download.is_stopping or download.max_bytes < max_bytes
        ):
            await asyncio.wait({download.task})
        if download is None:
            download = self._running[blob] = Download(self._means, blob, max_bytes)
            download.task.add_done_callback(lambda _: self._running.pop(blob, None))
        return download

    @property
    def running(self) -> list[BlobId]:
        """Blobs that are on their way here right now."""
        return list(self._running)

    def partial_of(self, blob: BlobId) -> PartialBlob | None:
        """What arrived of `blob` so far, while it is being fetched: those chunks are served already."""
        download = self._running.get(blob)
        return download.partial if download else None
