"""The node's network: the network process first, then the coordinators' web addresses. Owns which way is tried when."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.client import NetworkClient, NetworkConfig, OnControl, ReachReport
from kinoswarm_network.durable import write_atomic
from kinoswarm_network.http_client import HttpSource
from kinoswarm_network.rate_caps import Caps, month_of_service
from kinoswarm_network.transport import PeerTransport, Transport
from kinoswarm_node.ports import OnBytes
from kinoswarm_node.reachability import is_cut_off, reach_in_words
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.envelope import Opened
from kinoswarm_protocol.errors import LocalError, MalformedBytes, RemoteError, Unreachable
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.invite import Invite
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.limits import MAX_ADDRESSES, MAX_CHAIN_BYTES, MAX_PROVIDER_ADDRESSES
from kinoswarm_protocol.messages import ProviderHint
from kinoswarm_protocol.records import (
    CHARTER_KEY,
    NodeRecord,
    ProviderRecord,
    Record,
    announce_again,
    newest,
    provider_keys,
    seal_record,
)

PEERS_FILE = "peers.json"
"""In a swarm's folder."""
MAX_CACHED_PEERS = 32
_MAX_CACHE_BYTES = 64 * 1024


def web_addresses(addresses: Sequence[str]) -> list[str]:
    """The http(s) ones."""
    return [a for a in addresses if a.startswith(("http://", "https://"))]


def peer_addresses(addresses: Sequence[str]) -> list[str]:
    """The multiaddresses that name their peer."""
    return [a for a in addresses if a.startswith("/") and "/p2p/" in a]


def hints_of(peers: Sequence[PeerId], addresses: Sequence[str]) -> list[ProviderHint]:
    """Each of `peers` with those of the multiaddresses that end in it."""
    return [
        ProviderHint(peer=p, addresses=[a for a in addresses if a.endswith(f"/p2p/{p}")])
        for p in peers
    ]


def cached_peers(path: Path) -> list[str]:
    """Multiaddresses that worked before; none when the file is damaged or absent."""
    try:
        with path.open("rb") as file:
            found = decode_json(file.read(_MAX_CACHE_BYTES), list[str])
    except (OSError, MalformedBytes):
        return []
    return peer_addresses(found)[:MAX_CACHED_PEERS]


@dataclass(frozen=True)
class PeerNetworkPlan:
    """Where things lie and who is to be met."""

    key: KeyPair
    invite: Invite
    config: NetworkConfig
    store: Path
    peers_file: Path
    on_control: OnControl
    """Answers what peers ask of this node."""


class PeerNetwork:
    """ports.Network over libp2p and HTTP; both share one blob folder."""

    def __init__(self, plan: PeerNetworkPlan) -> None:
        self._plan = plan
        self._client: NetworkClient | None = None
        self._ended: asyncio.Task[None] | None = None
        self._store = BlobStore(plan.store, plan.config.quota_bytes)
        self._config = plan.config
        self._reach = ReachReport(asked=0, reached=False)
        self._coordinators: Sequence[PeerId] = plan.invite.coordinators
        self._addresses: list[str] = []
        self._sources: list[HttpSource] = []
        self._caps = _caps(plan.config)
        self._know(plan.invite.addresses)

    async def start(self) -> None:
        """See ports.Network. A process that ended is started again."""
        if self._client is not None and self._ended is not None and self._ended.done():
            await self.stop()
        if self._client is None:
            await self._start_process()
        await self._running().connect(self._known_peers())
        await self._running().refresh_addresses()
        await self._find_reach()

    async def _start_process(self) -> None:
        self._client = await NetworkClient.start(self._config, self._plan.on_control)
        self._ended = asyncio.create_task(self._client.wait_ended())

    async def _find_reach(self) -> None:
        """Have peers dial back. A node that nobody can dial would be a dead entry in others' DHT: it turns client."""
        if self._config.client_mode:
            return
        with contextlib.suppress(RemoteError):
            self._reach = await self._running().reach()
        if is_cut_off(self._reach):
            self._config = structs.replace(self._config, client_mode=True)
            await self._end_process()
            await self._start_process()
            await self._running().connect(self._known_peers())

    def transports(self) -> list[Transport]:
        """The coordinators over libp2p, then over HTTP."""
        return [
            *(
                PeerTransport(self._running(), hint.peer, hint.addresses)
                for hint in self._coordinator_hints()
            ),
            *self._sources,
        ]

    async def believe(
        self, founder: PeerId, coordinators: Sequence[PeerId], addresses: Sequence[str]
    ) -> None:
        """See ports.Network. The invite's addresses stay in use: they were the founder's too."""
        self._coordinators = coordinators
        self._know(addresses)
        await self._running().set_authority(founder, coordinators)

    def _know(self, addresses: Sequence[str]) -> None:
        new = [address for address in addresses if address not in self._addresses]
        self._addresses = [*new, *self._addresses]
        pin = self._plan.invite.certificate_sha256
        self._sources = [
            *(HttpSource(url, self._store, pin, caps=self._caps) for url in web_addresses(new)),
            *self._sources,
        ]

    async def charter_chains(self) -> list[bytes]:
        """See ports.Network. Ways that are closed bring nothing."""
        found = []
        for source in self._sources:
            with contextlib.suppress(RemoteError):
                found.append(await source.charter_chain())
        with contextlib.suppress(RemoteError):
            found += await self._chains_of_dht()
        return found

    async def _chains_of_dht(self) -> list[bytes]:
        record = newest(await self._running().look_up(CHARTER_KEY), _now_ms())
        if record is None:
            return []
        blob = record.body.blob
        found = [one for key in provider_keys(blob) for one in await self._running().look_up(key)]
        hints = [ProviderHint(peer=one.signer, addresses=one.body.addresses) for one in found]
        path = await self.fetch_blob(blob, hints, lambda done, total: None)
        with path.open("rb") as file:
            return [file.read(MAX_CHAIN_BYTES + 1)]

    async def add_blob(self, path: Path) -> BlobId:
        """See ports.Network."""
        blob = await self._running().add_blob(path)
        await self._running().pin(blob)
        return blob

    async def pin(self, blob: BlobId) -> None:
        """See ports.Network."""
        await self._running().pin(blob)

    async def unpin(self, blob: BlobId) -> None:
        """See ports.Network."""
        await self._running().unpin(blob)

    async def blob_path(self, blob: BlobId) -> Path | None:
        """See ports.Network."""
        return await asyncio.to_thread(self._store.path_of, blob)

    async def fetch_blob(
        self, blob: BlobId, providers: Sequence[ProviderHint], on_bytes: OnBytes
    ) -> Path:
        """From peers and coordinators; when that fails, over HTTP, going on with what came."""
        problems = []
        asked = [*self._coordinator_hints(), *providers]
        ways: list[NetworkClient | HttpSource] = [self._running(), *self._sources]
        for way in ways:
            try:
                return await way.fetch_blob(blob, asked, on_bytes)
            except RemoteError as error:
                problems.append(str(error))
        raise Unreachable(f"blob {blob[:12]}… could not be had: {'; '.join(problems)}")

    async def announce(self, record: NodeRecord, blobs: Sequence[BlobId]) -> None:
        """Announce the node, and blobs to be found at once; the network process tells of all that it holds."""
        client, now_ms = self._running(), _now_ms()
        own = client.addresses[:MAX_PROVIDER_ADDRESSES]
        records: list[Record] = [record]
        records += [ProviderRecord(blob=blob, addresses=own) for blob in blobs]
        for body in records:
            sealed = seal_record(self._plan.key, self._plan.invite.swarm, body, now_ms)
            await client.announce(sealed)

    async def announce_again(self, record: Opened[Any]) -> None:
        """See ports.Network."""
        await self._running().announce(announce_again(record, _now_ms()))

    async def look_up(self, key: str) -> list[bytes]:
        """See ports.Network."""
        return [record.raw for record in await self._running().look_up(key)]

    def addresses(self) -> list[str]:
        """See ports.Network."""
        return [] if self._config.client_mode else self._running().addresses[:MAX_ADDRESSES]

    def reach(self) -> str:
        """See ports.Network."""
        return reach_in_words(self._reach)

    async def remember_peers(self, hints: Sequence[ProviderHint]) -> None:
        """The newest first, bounded; a cache that can't be written is no reason to stop."""
        new = [a for hint in hints for a in peer_addresses(hint.addresses)]
        kept = list(dict.fromkeys([*new, *self._cached_peers()]))[:MAX_CACHED_PEERS]
        try:
            write_atomic(self._plan.peers_file, msgspec.json.encode(kept))
        except LocalError:
            return

    async def stop(self) -> None:
        """See ports.Network."""
        for source in self._sources:
            await source.close()
        await self._end_process()
        self._caps.month.write_last()

    async def _end_process(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.stop()

    def _running(self) -> NetworkClient:
        if self._client is None:
            raise LocalError("the network process is not running")
        return self._client

    def _coordinator_hints(self) -> list[ProviderHint]:
        return hints_of(self._coordinators, peer_addresses(self._addresses))

    def _known_peers(self) -> list[str]:
        """Cached peers first: they work even when the invite's addresses are gone."""
        return [*self._cached_peers(), *peer_addresses(self._addresses)]

    def _cached_peers(self) -> list[str]:
        return cached_peers(self._plan.peers_file)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _caps(config: NetworkConfig) -> Caps:
    """What goes over HTTP when no peer brings it: the same caps as the network process has, and one month for both."""
    month = month_of_service(Path(config.home), config.month_bytes)
    return Caps(config.up_bytes_per_s, config.down_bytes_per_s, month)
