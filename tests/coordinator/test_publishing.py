"""What was decided becomes public, also what is decided while the publisher is at work."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from coordinator.small_service import journal_of, service_over
from coordinator.small_swarm import rules
from protocol.samples import BLOB

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator import serve
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.publisher import Publisher
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_network.client import NetworkClient
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.messages import ReleaseFile
from kinoswarm_protocol.records import SealedRecord

A_DAY_S = 86_400.0


def founded() -> Service:
    founded = ev.Founded(at_ms=1, num_clusters=1, seed_checkpoint=BLOB)
    return service_over(journal_of([founded]), rules(1))


def built(version: int) -> ev.ReleaseBuilt:
    return ev.ReleaseBuilt(
        at_ms=1,
        version=version,
        expert_versions=[0],
        files=[ReleaseFile(path="model_index.json", blob=BLOB, size_bytes=2)],
        share_by_expert=[1.0],
    )


class SlowDht:
    """The first announcement takes so long that something else happens meanwhile."""

    def __init__(self, folder: Path, service: Service) -> None:
        self.service = service
        self.file = folder / "model_index.json"
        self.file.write_text("{}")
        self.announced = 0

    async def announce(self, record: SealedRecord) -> bool:
        self.announced += 1
        if self.announced == 1:
            await self.service.record([built(1)])
        return True

    async def blob_path(self, blob: BlobId) -> Path:
        return self.file

    async def add_blob(self, path: Path) -> BlobId:
        return BlobId("ab" * 32)

    async def pin(self, blob: BlobId) -> None:
        """Nothing is evicted here."""


async def until(is_so: Callable[[], bool], service: Service) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await service.journal.wait_for_change()


def test_a_release_that_is_built_during_an_announcement_is_published_at_once(
    tmp_path: Path,
) -> None:
    async def go() -> None:
        service = founded()
        publisher = Publisher(
            service=service,
            network=cast(NetworkClient, SlowDht(tmp_path, service)),
            folder=SwarmFolder(tmp_path),
            announce_every_s=A_DAY_S,
        )
        running = asyncio.create_task(publisher.run())
        releases = service.journal.state.releases
        await until(lambda: bool(releases and releases[0].manifest), service)
        running.cancel()

    asyncio.run(go())


def test_a_release_that_comes_out_while_a_copy_is_written_is_in_the_next_one_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        service = founded()
        loop, again = asyncio.get_running_loop(), asyncio.Event()
        copies: list[Path] = []

        def write(sources: object, facts: object, folder: Path, *, with_model: bool) -> None:
            copies.append(folder)
            if len(copies) == 2:
                loop.call_soon_threadsafe(again.set)
                return
            published = ev.ReleasePublished(at_ms=1, version=1, manifest=BLOB)
            recording = service.record([built(1), published])
            asyncio.run_coroutine_threadsafe(recording, loop).result(5)

        monkeypatch.setattr(serve, "site_facts", lambda sources: None)
        monkeypatch.setattr(serve, "write_site", write)
        sources = SimpleNamespace(service=service, folder=SwarmFolder(tmp_path), copy_folder=None)
        copying = asyncio.create_task(serve._make_copies(cast(WebSources, sources), A_DAY_S))
        async with asyncio.timeout(5):
            await again.wait()
        copying.cancel()

    asyncio.run(go())
