"""A look at a swarm from outside: ask its coordinator and fetch blobs without taking part. Owns the ways there.

Web addresses are tried first, because they need no network process; it is started only when they don't answer.
"""

import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.client import NetworkClient, NetworkConfig
from kinoswarm_network.coordinator_client import CoordinatorClient
from kinoswarm_network.http_client import HttpSource
from kinoswarm_network.identity import load_or_create_key
from kinoswarm_network.link import OnProgress
from kinoswarm_network.transport import PeerTransport, Transport
from kinoswarm_node.peer_network import hints_of, peer_addresses, web_addresses
from kinoswarm_node.ports import OnBytes
from kinoswarm_protocol.charter_chain import open_chain
from kinoswarm_protocol.errors import Code, Refused, RemoteError, Unreachable
from kinoswarm_protocol.ids import BlobId, LeaseId, PeerId
from kinoswarm_protocol.invite import Invite
from kinoswarm_protocol.messages import Lookup, ProviderHint, Records
from kinoswarm_protocol.records import CHARTER_KEY, Authority, provider_keys


@dataclass(frozen=True)
class Visit:
    """An open way to a swarm."""

    client: CoordinatorClient
    transports: list[Transport]
    swarm: "SwarmAlone"
    """The swarm's own peers, for when no coordinator answers."""
    founder: PeerId

    async def authority(self) -> Authority:
        """Whose signatures count now: a coordinator tells of an amended key; without one the invite's count."""
        with contextlib.suppress(Unreachable):
            await self.client.ask(Lookup(key=CHARTER_KEY), Records)
        return Authority(self.client.swarm, self.founder, self.client.coordinators)

    async def look_up(self, key: str) -> list[bytes]:
        """Signed records under a key: the coordinator's, or those that the swarm's peers keep when it is gone."""
        try:
            return (await self.client.ask(Lookup(key=key), Records)).records
        except Unreachable as error:
            found = await self.swarm.look_up(key)
            if not found:
                raise Unreachable(
                    f"{error}; and no other peer of the swarm could be asked. If you know one, name it with --peer"
                ) from error
            return found

    async def fetch(self, blob: BlobId, on_bytes: OnBytes) -> Path:
        """A verified blob by the first way that has it; what an earlier try left is used. Raises Unreachable."""
        if self.swarm.is_asked:
            return await self.swarm.fetch(blob, on_bytes)
        problems = []
        for transport in self.transports:
            try:
                return await transport.fetch_blob(blob, (), on_bytes)
            except RemoteError as error:
                problems.append(f"{transport}: {error}")
        raise Unreachable(f"blob {blob[:12]}… could not be had ({'; '.join(problems)})")


class SwarmAlone:
    """The peers of a swarm without its coordinator: records from the DHT, blobs from whoever serves the release."""

    def __init__(self, process: "_LateProcess") -> None:
        self._process = process
        self._providers: dict[str, ProviderHint] = {}
        self.is_asked = False
        """Whether the coordinators were given up."""

    async def look_up(self, key: str) -> list[bytes]:
        """The valid records that the DHT knows. Raises LocalError when the network process can't run here."""
        client = await self._process.client()
        self.is_asked = True
        return [record.raw for record in await client.look_up(key)]

    async def fetch(self, blob: BlobId, on_bytes: OnBytes) -> Path:
        """From all providers known so far: who serves a release's table serves its files too."""
        client = await self._process.client()
        for key in provider_keys(blob):
            for found in await client.look_up(key):
                hint = ProviderHint(peer=found.signer, addresses=list(found.body.addresses))
                self._providers[found.signer] = hint
        return await client.fetch_blob(blob, list(self._providers.values()), on_bytes)


@contextlib.asynccontextmanager
async def visiting(
    invite: Invite, scratch: Path | None = None, peers: Sequence[str] = ()
) -> AsyncIterator[Visit]:
    """Ways to the coordinators under a key of no meaning. Blobs go to `scratch`, which stays, or to nowhere.

    `peers` are multiaddresses of other peers of the swarm.
    """
    async with contextlib.AsyncExitStack() as stack:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kinoswarm-visit-")))
        store = BlobStore(scratch or own / "blobs")
        sources = [
            await stack.enter_async_context(HttpSource(url, store, invite.certificate_sha256))
            for url in web_addresses(invite.addresses)
        ]
        process = _LateProcess(invite, own, store.root, peers)
        stack.push_async_callback(process.stop)
        late: list[Transport] = [
            _LatePeer(process, hint)
            for hint in hints_of(invite.coordinators, peer_addresses(invite.addresses))
            if hint.addresses
        ]
        transports = [*sources, *late]
        key = load_or_create_key(own / "visitor.key")
        client = CoordinatorClient(key, invite.swarm, invite.coordinators, transports)
        client.learn = Learning(client, sources).learn
        yield Visit(client, transports, SwarmAlone(process), invite.founder)


class Learning:
    """Finds the amendment that explains a coordinator's unknown key: at the addresses of an older invite."""

    def __init__(self, client: CoordinatorClient, sources: Sequence[HttpSource]) -> None:
        self._client = client
        self._sources = sources

    async def learn(self) -> bool:
        """Whether the coordinators are others than those known."""
        before, known = self._client.coordinators, -1
        for source in self._sources:
            with contextlib.suppress(RemoteError):
                chain = open_chain(await source.charter_chain(), self._client.swarm)
                if chain.number > known:
                    known = chain.number
                    self._client.coordinators = frozenset(chain.charter.coordinators)
        return self._client.coordinators != before


class _LateProcess:
    """A network process that starts when somebody asks for it."""

    def __init__(self, invite: Invite, folder: Path, store: Path, peers: Sequence[str]) -> None:
        self._config = NetworkConfig(
            home=str(folder / secrets.token_hex(4)),
            swarm=invite.swarm,
            key_file=str(folder / "visitor.key"),
            founder=invite.founder,
            coordinators=list(invite.coordinators),
            store=str(store),
            listen=[],
            bootstrap=[*peer_addresses(invite.addresses), *peers],
            client_mode=True,
        )
        self._client: NetworkClient | None = None

    async def client(self) -> NetworkClient:
        if self._client is None:
            self._client = await NetworkClient.start(self._config, _answer_nobody)
        return self._client

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.stop()


class _LatePeer:
    """A Transport over that process."""

    def __init__(self, process: _LateProcess, hint: ProviderHint) -> None:
        self._process = process
        self._hint = hint

    def __str__(self) -> str:
        return f"peer {self._hint.peer}"

    async def ask(self, request: bytes) -> bytes:
        return await (await self._transport()).ask(request)

    async def fetch_blob(
        self,
        blob: BlobId,
        providers: Sequence[ProviderHint] = (),
        on_progress: OnProgress | None = None,
    ) -> Path:
        return await (await self._transport()).fetch_blob(blob, providers, on_progress)

    async def deliver(self, lease_id: LeaseId, blob: BlobId) -> None:
        await (await self._transport()).deliver(lease_id, blob)

    async def _transport(self) -> PeerTransport:
        client = await self._process.client()
        return PeerTransport(client, self._hint.peer, self._hint.addresses)


async def _answer_nobody(peer: PeerId, request: bytes) -> bytes:
    """A visitor takes no control requests."""
    raise Refused(Code.NOT_PERMITTED, "this is a visitor, not a coordinator")
