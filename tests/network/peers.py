"""Peers that network tests start: honest ones as real processes, and a stranger who breaks every rule."""

import asyncio
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kinoswarm_network.client import NetworkClient, NetworkConfig, Provider
from kinoswarm_network.daemon import DaemonFiles
from kinoswarm_network.hivemind_parts import load_hivemind
from kinoswarm_network.host import Host
from kinoswarm_network.identity import load_or_create_key, write_libp2p_identity
from kinoswarm_network.streams import Stream
from kinoswarm_protocol.errors import Code, LocalError, Refused
from kinoswarm_protocol.ids import PeerId, SwarmId
from kinoswarm_protocol.keys import KeyPair

FOUNDER = KeyPair(bytes(range(32)))
COORDINATOR = KeyPair(bytes(range(1, 33)))
SWARM = SwarmId("ab" * 32)
OTHER_SWARM = SwarmId("cd" * 32)
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
NOBODY = f"/ip4/127.0.0.1/tcp/1/p2p/{FOUNDER.peer_id}"


def config(home: Path, **changes: Any) -> NetworkConfig:
    given: dict[str, Any] = {
        "home": str(home),
        "swarm": SWARM,
        "key_file": str(home / "key"),
        "founder": FOUNDER.peer_id,
        "coordinators": [COORDINATOR.peer_id],
        "listen": [LOOPBACK],
        "connect_timeout_s": 5.0,
        "chunk_timeout_s": 5.0,
    }
    return NetworkConfig(**{**given, **changes})


async def echo(peer: PeerId, request: bytes) -> bytes:
    """A service that says who asked what; two requests make it refuse and break."""
    if request == b"refuse":
        raise Refused(Code.LEASE_USED, "this lease was used already")
    if request == b"break":
        raise LocalError("secret: /home/heron/disk is full")
    return peer.encode() + b" asked " + request


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def provider(node: "NetworkClient | Stranger") -> Provider:
    return Provider(peer=node.peer_id, addresses=node.addresses)


@dataclass
class Nodes:
    """Three processes of one swarm: `first` started alone, the others bootstrapped from it."""

    folder: Path
    first: NetworkClient
    second: NetworkClient
    third: NetworkClient

    async def stop(self) -> None:
        await asyncio.gather(self.first.stop(), self.second.stop(), self.third.stop())


async def start_nodes(folder: Path) -> Nodes:
    first = await NetworkClient.start(config(folder / "first"), echo)
    second, third = await asyncio.gather(
        *(
            NetworkClient.start(
                config(folder / name, bootstrap=first.addresses, chunk_timeout_s=1.0), echo
            )
            for name in ("second", "third")
        )
    )
    return Nodes(folder, first, second, third)


@dataclass
class Stranger:
    """A libp2p host in the test's own process: it speaks the protocols and keeps no promise."""

    host: Host
    key: KeyPair
    peer_id: PeerId
    addresses: list[str]
    handlers: dict[str, Callable[[Stream], Awaitable[None]]] = field(default_factory=dict)

    @classmethod
    async def start(cls, folder: Path, swarm: SwarmId = SWARM) -> "Stranger":
        key = load_or_create_key(folder / "key")
        write_libp2p_identity(key, folder / "identity")
        parts = load_hivemind()
        files = DaemonFiles(parts.p2pd, folder / "identity", folder / "p2pd.sock")
        host = await Host.start(parts, files, config(folder, swarm=swarm))
        return cls(host, key, host.peer, await host.addresses())

    async def serve(self, protocol: str, handler: Callable[[Stream], Awaitable[None]]) -> None:
        """Serve a protocol from now on with this handler instead of an earlier one."""
        is_new = protocol not in self.handlers
        self.handlers[protocol] = handler

        async def serve_as_told(stream: Stream) -> None:
            await self.handlers[protocol](stream)

        if is_new:
            await self.host.serve(protocol, serve_as_told)

    async def dht(self, **options: Any) -> Any:
        """A DHT node without any validator, which therefore stores and says what it likes."""
        return await self.host.parts.DHTNode.create(p2p=self.host.p2p, **options)


def wait_until_gone(pids: list[int], timeout_s: float) -> bool:
    """Whether all processes end within the time; none of them need be our child."""
    deadline = time.monotonic() + timeout_s
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ready, _, _ = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
        os.close(handle)
        if not ready:
            return False
    return True


def is_listening(address: str) -> bool:
    """Whether something accepts connections at a /ip4/…/tcp/… address."""
    parts = address.split("/")
    try:
        with socket.create_connection((parts[2], int(parts[4])), timeout=1):
            return True
    except OSError:
        return False
