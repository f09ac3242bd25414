"""What the HTTP side reads and calls. Owns the seam to the service; everything it gives out is public."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.views import SwarmView, view_of
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_protocol.ids import BlobId


@dataclass(kw_only=True)
class WebSources:
    """One coordinator as HTTP sees it."""

    service: Service
    store: BlobStore
    folder: SwarmFolder
    invite: str
    doing: Callable[[], str] = field(default=lambda: "")

    def view(self) -> SwarmView:
        """The public view of this moment."""
        service = self.service
        return view_of(
            service.journal.state,
            service.rules,
            service.presence,
            service.now_ms(),
            self.doing(),
            service.swarm,
        )

    async def control(self, raw: bytes) -> bytes:
        """The reply to a request's bytes."""
        return await self.service.answer(raw)

    async def next_change(self, timeout_s: float) -> None:
        """Return after a change, or when `timeout_s` has passed: presence changes without one."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.service.journal.wait_for_change()
        except TimeoutError:
            return

    def blob_path(self, blob: BlobId) -> Path | None:
        """The data file of a public blob."""
        return self.store.path_of(blob)

    def manifest_bytes(self, blob: BlobId) -> bytes | None:
        """The encoded manifest of a public blob."""
        return self.store.manifest_bytes(blob)

    def release_file(self, version: int, name: str) -> Path | None:
        """A file of a laid-out release, if the release names it."""
        for release in self.service.journal.state.releases:
            if release.version == version and any(file.path == name for file in release.files):
                path = self.folder.releases / str(version) / name
                return path if path.is_file() else None
        return None
