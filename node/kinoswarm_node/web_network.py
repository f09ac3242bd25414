"""The node's network over HTTP(S) alone: no network process, no hivemind, no Go. Owns the ways there.

A node like this dials out and is dialled by nobody: it serves no blobs, is in no DHT, and brings its results itself.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.http_client import HttpSource
from kinoswarm_network.rate_caps import Caps
from kinoswarm_network.transport import Transport
from kinoswarm_node.peer_network import web_addresses
from kinoswarm_node.ports import OnBytes
from kinoswarm_protocol.envelope import Opened
from kinoswarm_protocol.errors import LocalError, RemoteError, Unreachable
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.messages import ProviderHint
from kinoswarm_protocol.records import NodeRecord


@dataclass(frozen=True)
class WebNetworkPlan:
    """Where the coordinators are and what may be moved."""

    urls: Sequence[str]
    certificate_sha256: str
    store: BlobStore
    caps: Caps


class WebNetwork:
    """ports.Network over HTTP(S)."""

    def __init__(self, plan: WebNetworkPlan) -> None:
        self._plan = plan
        self._store = plan.store
        self._caps = plan.caps
        self._sources: list[HttpSource] = []
        self._know(plan.urls)

    async def start(self) -> None:
        """See ports.Network. Raises LocalError when the invite names no web address."""
        if not self._sources:
            raise LocalError(
                "the invite names no http(s) address, so this swarm can't be joined by HTTPS alone: leave out "
                "--https-only, or ask for an invite with the coordinator's web address"
            )

    def transports(self) -> list[Transport]:
        """The coordinators' web addresses."""
        return [*self._sources]

    async def believe(
        self, founder: PeerId, coordinators: Sequence[PeerId], addresses: Sequence[str]
    ) -> None:
        """See ports.Network. No records are looked up here; the invite's addresses stay in use."""
        self._know(web_addresses(addresses))

    def _know(self, urls: Sequence[str]) -> None:
        known = {source.base_url for source in self._sources}
        new = [url for url in urls if url.rstrip("/") not in known]
        pin = self._plan.certificate_sha256
        self._sources = [
            *(HttpSource(url, self._store, pin, caps=self._caps) for url in new),
            *self._sources,
        ]

    async def charter_chains(self) -> list[bytes]:
        """See ports.Network. Addresses that do not answer bring nothing."""
        found = []
        for source in self._sources:
            with contextlib.suppress(RemoteError):
                found.append(await source.charter_chain())
        return found

    async def remember_peers(self, hints: Sequence[ProviderHint]) -> None:
        """See ports.Network: no peer is ever asked."""

    async def add_blob(self, path: Path) -> BlobId:
        """See ports.Network; kept until the verdict."""
        blob = await asyncio.to_thread(self._store.add_file, path)
        await self.pin(blob)
        return blob

    async def pin(self, blob: BlobId) -> None:
        """See ports.Network."""
        await asyncio.to_thread(self._store.pin, blob, True)

    async def unpin(self, blob: BlobId) -> None:
        """See ports.Network."""
        await asyncio.to_thread(self._store.pin, blob, False)

    async def blob_path(self, blob: BlobId) -> Path | None:
        """See ports.Network."""
        return await asyncio.to_thread(self._store.path_of, blob)

    async def fetch_blob(
        self, blob: BlobId, providers: Sequence[ProviderHint], on_bytes: OnBytes
    ) -> Path:
        """See ports.Network; `providers` are peers and not asked."""
        return await fetch_from(self._sources, blob, on_bytes)

    async def announce(self, record: NodeRecord, blobs: Sequence[BlobId]) -> None:
        """See ports.Network: nobody can dial this node, so there is nothing to announce."""

    async def announce_again(self, record: Opened[Any]) -> None:
        """See ports.Network: this node is in no DHT; others announce."""

    async def look_up(self, key: str) -> list[bytes]:
        """See ports.Network: nothing is found without a DHT."""
        return []

    def addresses(self) -> list[str]:
        """See ports.Network."""
        return []

    def reach(self) -> str:
        """See ports.Network."""
        return "not needed: this node talks to the coordinator's web address alone"

    async def stop(self) -> None:
        """See ports.Network."""
        for source in self._sources:
            await source.close()
        self._caps.month.write_last()


async def fetch_from(sources: Sequence[HttpSource], blob: BlobId, on_bytes: OnBytes) -> Path:
    """A verified blob from the first address that gives it. Raises Unreachable with every address's reason."""
    problems = []
    for source in sources:
        try:
            return await source.fetch_blob(blob, on_progress=on_bytes)
        except RemoteError as error:
            problems.append(str(error))
    raise Unreachable(f"blob {blob[:12]}… could not be had: {'; '.join(problems)}")
