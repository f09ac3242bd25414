"""Makes what was decided public: release manifests, DHT announcements, release folders. Owns no decision."""

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import structlog

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.retention import kept_releases
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.state import ReleaseState
from kinoswarm_network.client import NetworkClient
from kinoswarm_network.durable import link_or_copy, write_atomic
from kinoswarm_protocol.charter import is_coordinator
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.errors import KinoswarmError, RemoteError
from kinoswarm_protocol.messages import RELEASE, ExpertRef, ReleaseManifest

_log = structlog.get_logger("publisher")


@dataclass(kw_only=True)
class Publisher:
    """Publishes built releases and announces the newest of everything."""

    service: Service
    network: NetworkClient
    folder: SwarmFolder
    announce_every_s: float

    async def run(self) -> None:
        """Publish what is built, announce after every change and now and then, until cancelled."""
        while True:
            seen = self._news()
            await self._publish_built()
            await self._announce()
            try:
                async with asyncio.timeout(self.announce_every_s):
                    await self._news_since(seen)
            except TimeoutError:
                continue

    async def _news_since(self, seen: tuple[int, int]) -> None:
        """Return at once for what came while `seen` was published."""
        while self._news() == seen:
            await self.service.journal.wait_for_change()

    def _news(self) -> tuple[int, int]:
        state = self.service.journal.state
        return len(state.releases), sum(len(line) for line in state.versions.values())

    async def _publish_built(self) -> None:
        for release in kept_releases(self.service.journal.state):
            if release.manifest is None or self._signed_by_ended_key(release):
                await self._publish(release)

    def _signed_by_ended_key(self, release: ReleaseState) -> bool:
        """Whether an amendment ended the key that signed a release: nobody would believe it any more."""
        path = self._manifest_path(release)
        if not path.is_file() or not (self.folder.releases / str(release.version)).is_dir():
            return False
        signer = open_envelope(path.read_bytes(), RELEASE, self.service.swarm).signer
        return not is_coordinator(self.service.rules.charter, signer)

    def _manifest_path(self, release: ReleaseState) -> Path:
        return self.folder.releases / f"{release.version}.manifest"

    async def _publish(self, release: ReleaseState) -> None:
        """Sign the table of contents and lay the folder out; safe to repeat after a crash."""
        await self._lay_out(release)
        raw = seal(self.service.key, RELEASE, self.service.swarm, self._manifest(release))
        path = self._manifest_path(release)
        write_atomic(path, raw, mode=0o644)
        blob = await self.network.add_blob(path)
        await self.network.pin(blob)
        event = ev.ReleasePublished(
            at_ms=self.service.now_ms(), version=release.version, manifest=blob
        )
        await self.service.record([event])
        _log.info("release is out", version=release.version)

    def _manifest(self, release: ReleaseState) -> ReleaseManifest:
        state, charter = self.service.journal.state, self.service.rules.charter
        router = state.router
        experts = [
            ExpertRef(
                cluster=key[0],
                lineage=key[1],
                version=version,
                checkpoint=state.versions[key][version].checkpoint,
            )
            for key, version in release.experts_by_key()
        ]
        return ReleaseManifest(
            version=release.version,
            swarm_name=charter.name,
            created_at_ms=release.created_at_ms,
            experts=experts,
            files=release.files,
            router_accuracy=router.accuracy_by_t if router else [],
            share_by_expert=release.share_by_expert,
            charter_sha256=self.service.swarm,
        )

    async def _lay_out(self, release: ReleaseState) -> None:
        """The release as a folder, for the page; files are links to the store's blobs where the disk allows."""
        target = self.folder.releases / str(release.version)
        if target.is_dir():
            return
        building = target.with_suffix(".part")
        shutil.rmtree(building, ignore_errors=True)
        for file in release.files:
            source = await self.network.blob_path(file.blob)
            if source is not None:
                link_or_copy(source, building / file.path)
        os.replace(building, target)

    async def _announce(self) -> None:
        """Put our records into the DHT; it is a hint, so a failure is only noted."""
        service = self.service
        for record in service.book.all(service.journal.state, service.now_ms()):
            try:
                await self.network.announce(record)
            except RemoteError as error:
                _log.info("not announced", key=record.key, why=str(error))
            except KinoswarmError as error:
                _log.warning("network process", why=str(error))
                return
