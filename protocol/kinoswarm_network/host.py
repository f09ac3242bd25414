"""Our end of libp2p: connections, and streams in both directions, within one swarm. Owns p2pd and hivemind's P2P.

Must not know what a stream carries.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kinoswarm_network.daemon import Daemon, DaemonFiles
from kinoswarm_network.hivemind_parts import HivemindParts
from kinoswarm_network.ipc import NetworkConfig
from kinoswarm_network.multiaddresses import (
    connect_problem,
    direct_host,
    farthest_first,
    peer_in,
    stream_problem,
)
from kinoswarm_network.stream_frames import dht_prefix, refusal
from kinoswarm_network.streams import Stream
from kinoswarm_protocol.errors import (
    Code,
    KinoswarmError,
    MalformedBytes,
    Refused,
    Unreachable,
)
from kinoswarm_protocol.ids import PeerId, SwarmId
from kinoswarm_protocol.keys import public_key_of
from kinoswarm_protocol.limits import (
    CONTROL_TIMEOUT_S,
    MAX_INBOUND_STREAMS,
    MAX_INBOUND_STREAMS_PER_PEER,
)

StreamHandler = Callable[[Stream], Awaitable[None]]
_log = logging.getLogger(__name__)


class Host:
    """A started libp2p host."""

    def __init__(
        self, parts: HivemindParts, p2p: Any, daemon: Daemon, connect_timeout_s: float
    ) -> None:
        self.parts = parts
        self.p2p = p2p
        self.daemon = daemon
        self.peer = PeerId(p2p.peer_id.to_base58())
        self._connect_timeout_s = connect_timeout_s
        self._inbound: Counter[PeerId] = Counter()

    @classmethod
    async def start(cls, parts: HivemindParts, files: DaemonFiles, config: NetworkConfig) -> "Host":
        """Start p2pd and attach to it. Raises LocalError when it cannot listen."""
        daemon = await Daemon.start(files, config)
        kind = _swarm_p2p(parts, config.swarm, files.socket.parent)
        try:
            p2p = await kind.replicate(parts.Multiaddr(f"/unix{daemon.socket}"))
        except (OSError, parts.P2PDaemonError):
            daemon.kill()
            raise
        return cls(parts, p2p, daemon, config.connect_timeout_s)

    async def addresses(self) -> list[str]:
        """Multiaddresses of this host as of now, each ending in /p2p/<id>, those first that lead the farthest.

        None when it listens nowhere.
        """
        _, found = await self.p2p._client.identify()
        return farthest_first([f"{address}/p2p/{self.peer}" for address in found])

    async def num_peers(self) -> int:
        """Peers connected now."""
        return len(await self.p2p.list_peers())

    async def seen_at(self) -> dict[PeerId, str]:
        """The IP address of every peer that is connected without a relay, as its packets show it."""
        found: dict[PeerId, str] = {}
        for info in await self.p2p.list_peers():
            for address in info.addrs:
                if host := direct_host(str(address)):
                    found[PeerId(info.peer_id.to_base58())] = host
        return found

    async def connect(self, peer: PeerId, addresses: list[str]) -> None:
        """Connect unless connected already. Raises Unreachable in plain words, MalformedBytes for a bad address."""
        dialled = self._dialled(peer, addresses)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self.p2p._client.connect(self._id(peer), dialled)
        except TimeoutError:
            raise Unreachable(connect_problem("i/o timeout")) from None
        except (self.parts.P2PDaemonError, OSError, asyncio.IncompleteReadError) as error:
            raise Unreachable(connect_problem(str(error))) from error

    async def open_stream(self, peer: PeerId, addresses: list[str], protocol: str) -> Stream:
        """A new stream to `peer`; without addresses libp2p must know or find it. Raises Unreachable."""
        if addresses:
            await self._connect_if_possible(peer, addresses)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, reader, writer = await self.p2p.call_binary_stream_handler(
                    self._id(peer), protocol
                )
        except TimeoutError:
            raise Unreachable(stream_problem(peer, "i/o timeout")) from None
        except (self.parts.P2PDaemonError, OSError, asyncio.IncompleteReadError) as error:
            raise Unreachable(stream_problem(peer, str(error))) from error
        return Stream(peer, reader, writer)

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Have `handler` take every stream that peers open for `protocol`, within the limits on streams at once."""

        async def accept(
            info: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            async with Stream(PeerId(info.peer_id.to_base58()), reader, writer) as stream:
                try:
                    await self._admit(stream, handler)
                except KinoswarmError as error:
                    _log.info("stream %s of %s: %s", protocol, stream.peer, error)

        await self.p2p.add_binary_stream_handler(protocol, accept)

    async def stop(self) -> None:
        """End p2pd."""
        await self.p2p.shutdown()
        self.daemon.kill()
        await self.daemon.wait()

    async def _admit(self, stream: Stream, handler: StreamHandler) -> None:
        public_key_of(stream.peer)  # a peer of another key type has no identity here
        too_many = (
            self._inbound.total() >= MAX_INBOUND_STREAMS
            or self._inbound[stream.peer] >= MAX_INBOUND_STREAMS_PER_PEER
        )
        if too_many:
            busy = Refused(Code.OVERLOADED, "too many streams are open here; try again in a moment")
            await stream.send(refusal(busy), CONTROL_TIMEOUT_S)
            await stream.await_acknowledgement()
            return
        self._inbound[stream.peer] += 1
        try:
            await handler(stream)
        finally:
            self._inbound[stream.peer] -= 1
            self._inbound += Counter()  # forget peers that are down to zero

    async def _connect_if_possible(self, peer: PeerId, addresses: list[str]) -> None:
        try:
            await self.connect(peer, addresses)
        except (Unreachable, MalformedBytes) as error:
            _log.info("known addresses of %s do not work: %s", peer, error)

    def _dialled(self, peer: PeerId, addresses: list[str]) -> list[Any]:
        """The usable ones of `addresses`, without their /p2p suffix, which must name `peer`."""
        dialled, problems = [], []
        for address in addresses:
            if peer_in(address) not in (None, peer):
                problems.append(f"{address[:200]!r} belongs to another peer than {peer}")
                continue
            try:
                dialled.append(self.parts.Multiaddr(address.removesuffix(f"/p2p/{peer}")))
            except (self.parts.AddressError, ValueError) as error:
                problems.append(f"{address[:200]!r} is not a multiaddress ({error})")
        if not dialled:
            raise MalformedBytes("; ".join(problems) or f"no address of {peer} is known")
        return dialled

    def _id(self, peer: PeerId) -> Any:
        return self.parts.PeerID.from_base58(peer)


def _swarm_p2p(parts: HivemindParts, swarm: SwarmId, sockets: Path) -> Any:
    """hivemind's P2P whose calls carry the swarm's id in their names, and whose sockets lie in our own folder."""
    prefix = dht_prefix(swarm)

    class SwarmP2P(parts.P2P):  # type: ignore[misc, name-defined]
        _UNIX_SOCKET_PREFIX = f"/unix{sockets}/"

        async def add_protobuf_handler(self, name: str, *args: Any, **options: Any) -> None:
            await super().add_protobuf_handler(prefix + name, *args, **options)

        async def remove_protobuf_handler(self, name: str, **options: Any) -> None:
            await super().remove_protobuf_handler(prefix + name, **options)

        async def call_binary_stream_handler(self, peer: Any, name: str) -> Any:
            """As hivemind's, but a stream that could not be opened leaves no connection to the daemon open."""
            control = self._client.control
            asking = _Asking(control.daemon_connector)
            try:
                return await type(control).stream_open(asking, peer, (name,))
            except BaseException:
                asking.close()
                raise

        async def call_protobuf_handler(self, peer: Any, name: str, *args: Any) -> Any:
            return await super().call_protobuf_handler(peer, prefix + name, *args)

    return SwarmP2P


class _Asking:
    """Stands in for hivemind's control client in its `stream_open`: knows the connections that were made for it."""

    def __init__(self, connector: Any) -> None:
        self.daemon_connector = self
        self._connector = connector
        self._writers: list[asyncio.StreamWriter] = []

    async def open_connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self._connector.open_connection()
        self._writers.append(writer)
        return reader, writer

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
