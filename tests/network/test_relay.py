"""Real p2pd daemons asked in circuit relay v2's own words: strangers go through nobody who did not say yes.

(libp2p specs, relay/circuit-v2.md: a HopMessage is RESERVE, CONNECT or STATUS; status 100 is OK.)
"""

import asyncio
from pathlib import Path
from typing import Any

import base58
import pytest
from network.peers import Nodes, Stranger, config, echo

from kinoswarm_network.client import NetworkClient
from kinoswarm_network.daemon import DaemonFiles
from kinoswarm_network.hivemind_parts import load_hivemind
from kinoswarm_network.host import Host
from kinoswarm_network.identity import load_or_create_key, write_libp2p_identity
from kinoswarm_protocol.errors import Unreachable
from kinoswarm_protocol.ids import PeerId

HOP = "/libp2p/circuit/relay/0.2.0/hop"
RESERVE = b"\x08\x00"
OK = b"\x28\x64"
"""The field `status` with 100."""


def connect_to(peer: PeerId) -> bytes:
    name = base58.b58decode(peer)
    body = b"\x0a" + bytes([len(name)]) + name
    return b"\x08\x01\x12" + bytes([len(body)]) + body


async def hop(host: Host, relay: NetworkClient, message: bytes) -> bytes:
    """The relay's answer to one message; messages and answers here are shorter than 16 KiB."""
    stream = await host.open_stream(relay.peer_id, relay.addresses, HOP)
    async with stream:
        await stream.send_raw(bytes([len(message)]) + message, 5.0)
        size = (await stream.receive_raw(1, 5.0))[0]
        if size & 0x80:
            size = (size & 0x7F) | (await stream.receive_raw(1, 5.0))[0] << 7
        return await stream.receive_raw(size, 5.0)


async def stranger_behind_nat(folder: Path) -> Host:
    """A libp2p host that listens nowhere and knows circuits."""
    folder.mkdir()
    write_libp2p_identity(load_or_create_key(folder / "key"), folder / "identity")
    parts = load_hivemind()
    files = DaemonFiles(parts.p2pd, folder / "identity", folder / "p2pd.sock")
    return await Host.start(parts, files, config(folder, listen=[], relay_for_others=True))


async def circuit(folder: Path, relay: NetworkClient) -> tuple[bytes, bytes]:
    """What the relay says to a stranger who reserves, and to another who wants to reach the first."""
    first = await stranger_behind_nat(folder / "first")
    second = await stranger_behind_nat(folder / "second")
    try:
        reserved = await hop(first, relay, RESERVE)
        return reserved, await hop(second, relay, connect_to(first.peer))
    finally:
        await first.stop()
        await second.stop()


@pytest.mark.parametrize(
    "message", [RESERVE, connect_to(PeerId(base58.b58encode(bytes(38)).decode()))]
)
def test_a_node_relays_no_stranger_unless_its_owner_said_so(
    runner: asyncio.Runner, nodes: Nodes, stranger: Stranger, message: bytes
) -> None:
    with pytest.raises(Unreachable, match="takes no part in this swarm"):
        runner.run(hop(stranger.host, nodes.first, message))


def test_a_node_whose_owner_said_so_relays(runner: asyncio.Runner, tmp_path: Path) -> None:
    async def scenario() -> Any:
        relay = await NetworkClient.start(config(tmp_path / "relay", relay_for_others=True), echo)
        try:
            return await circuit(tmp_path, relay)
        finally:
            await relay.stop()

    reserved, connected = runner.run(scenario())
    assert OK in reserved
    assert OK in connected


def test_two_strangers_do_not_meet_through_a_node_as_it_comes(
    runner: asyncio.Runner, nodes: Nodes, tmp_path: Path
) -> None:
    with pytest.raises(Unreachable, match="takes no part in this swarm"):
        runner.run(circuit(tmp_path, nodes.second))
