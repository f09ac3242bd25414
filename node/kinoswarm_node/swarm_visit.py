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
from kinoswarm_protocol.errors import Code, Refused, RemoteError, Unreachable
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.invite import Invite
from kinoswarm_protocol.messages import Lookup, ProviderHint, Records


@dataclass(frozen=True)
class Visit:
    """An open way to a swarm."""

    client: CoordinatorClient
    transports: list[Transport]

    async def look_up(self, key: str) -> list[bytes]:
        """The coordinator's signed records under a key."""
        return (await self.client.ask(Lookup(key=key), Records)).records

    async def fetch(self, blob: BlobId, on_bytes: OnBytes) -> Path:
        """A verified blob by the first way that has it; what an earlier try left is used. Raises Unreachable."""
        problems = []
        for transport in self.transports:
            try:
                return await transport.fetch_blob(blob, (), on_bytes)
            except RemoteError as error:
                problems.append(f"{transport}: {error}")
        raise Unreachable(f"blob {blob[:12]}… could not be had ({'; '.join(problems)})")


@contextlib.asynccontextmanager
async def visiting(invite: Invite, scratch: Path | None = None) -> AsyncIterator[Visit]:
    """Ways to the coordinators under a key of no meaning. Blobs go to `scratch`, which stays, or to nowhere."""
    async with contextlib.AsyncExitStack() as stack:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kinoswarm-visit-")))
        store = BlobStore(scratch or own / "blobs")
        sources = [
            await stack.enter_async_context(HttpSource(url, store, invite.certificate_sha256))
            for url in web_addresses(invite.addresses)
        ]
        process = _LateProcess(invite, own, store.root)
        stack.push_async_callback(process.stop)
        peers: list[Transport] = [
            _LatePeer(process, hint)
            for hint in hints_of(invite.coordinators, peer_addresses(invite.addresses))
            if hint.addresses
        ]
        transports = [*sources, *peers]
        key = load_or_create_key(own / "visitor.key")
        client = CoordinatorClient(key, invite.swarm, invite.coordinators, transports)
        yield Visit(client, transports)


class _LateProcess:
    """A network process that starts when somebody asks for it."""

    def __init__(self, invite: Invite, folder: Path, store: Path) -> None:
        self._config = NetworkConfig(
            home=str(folder / secrets.token_hex(4)),
            swarm=invite.swarm,
            key_file=str(folder / "visitor.key"),
            founder=invite.founder,
            coordinators=list(invite.coordinators),
            store=str(store),
            listen=[],
            bootstrap=peer_addresses(invite.addresses),
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

    async def _transport(self) -> PeerTransport:
        client = await self._process.client()
        return PeerTransport(client, self._hint.peer, self._hint.addresses)


async def _answer_nobody(peer: PeerId, request: bytes) -> bytes:
    """A visitor takes no control requests."""
    raise Refused(Code.NOT_PERMITTED, "this is a visitor, not a coordinator")
