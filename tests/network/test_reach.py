"""Can strangers dial this node? Real peers dial back: only the asker's own address, seldom, and only for libp2p."""

import asyncio
import socket

import pytest
from network.peers import SWARM, Nodes, Stranger
from node.real_swarm import LOOPBACK

from kinoswarm_network.client import ReachReport
from kinoswarm_network.multiaddresses import direct_host, tcp_port
from kinoswarm_network.reach import DialBackDesk, reach_protocol, speaks_libp2p
from kinoswarm_network.streams import Stream
from kinoswarm_node.checkup import State, judge_dial_back
from kinoswarm_node.reachability import is_cut_off, reach_in_words
from kinoswarm_protocol.errors import Code, Refused
from kinoswarm_protocol.ids import PeerId
from kinoswarm_protocol.limits import DIAL_BACK_EVERY_S, MAX_BLOB_FRAME

HOME = "8.8.4.4"


def test_connected_peers_dial_a_listening_node_back(runner: asyncio.Runner, nodes: Nodes) -> None:
    report = runner.run(nodes.second.reach())
    assert report.asked >= 1
    assert report.reached
    assert (report.host, report.port) == ("127.0.0.1", tcp_port(nodes.second.addresses[0]))


def test_a_stranger_cannot_have_another_address_dialled_or_dialled_often(
    runner: asyncio.Runner, nodes: Nodes, stranger: Stranger
) -> None:
    class Seen:
        """A host that sees the asker at one address; the swarm's own addresses never enter."""

        async def seen_at(self) -> dict[PeerId, str]:
            return {stranger.peer_id: "127.0.0.1"}

    now_s = [1_000.0]
    desk = DialBackDesk(Seen(), clock=lambda: now_s[0])
    port = tcp_port(nodes.first.addresses[0])

    async def ask(peer: PeerId) -> bool:
        return (await desk._try(peer, port)).open

    assert runner.run(ask(stranger.peer_id))
    with pytest.raises(Refused) as often:
        runner.run(ask(stranger.peer_id))
    assert often.value.code is Code.RATE_LIMITED
    now_s[0] += DIAL_BACK_EVERY_S
    assert runner.run(ask(stranger.peer_id))
    with pytest.raises(Refused) as unseen:
        runner.run(ask(nodes.second.peer_id))
    assert unseen.value.code is Code.NOT_FOUND


def test_a_closed_port_is_told_as_closed(runner: asyncio.Runner) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, and not listening
        assert not runner.run(speaks_libp2p("127.0.0.1", unused.getsockname()[1], 2.0))


def test_a_peer_that_answers_nonsense_counts_for_nothing(
    runner: asyncio.Runner, nodes: Nodes, stranger: Stranger
) -> None:
    async def lie(stream: Stream) -> None:
        await stream.receive(MAX_BLOB_FRAME, 1.0)
        await stream.send(b"\x93\x01\x02\x03", 1.0)

    async def ask() -> None:
        await stranger.serve(reach_protocol(SWARM), lie)
        await stranger.host.connect(nodes.first.peer_id, nodes.first.addresses)
        report = await nodes.first.reach()
        assert report.asked < 3

    runner.run(ask())


def test_a_listener_of_another_kind_is_no_libp2p(runner: asyncio.Runner) -> None:
    async def ask() -> bool:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example.org ready to go\r\n")
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with server:
            return await speaks_libp2p("127.0.0.1", server.sockets[0].getsockname()[1], 2.0)

    assert not runner.run(ask())


@pytest.mark.parametrize(
    ("asked", "reached", "host", "cut_off", "words"),
    [
        (0, False, "", False, ""),
        (2, False, HOME, True, "forward TCP port 4001"),
        (1, True, HOME, False, "got through"),
        (3, False, "192.168.1.9", False, "your own network"),
        (1, False, "2a00:1450:4001:81b::200e", True, "no: "),
        (1, False, "what?", False, "your own network"),
    ],
)
def test_only_the_internets_no_makes_a_node_a_client(
    asked: int, reached: bool, host: str, cut_off: bool, words: str
) -> None:
    report = ReachReport(asked=asked, reached=reached, host=host, port=4001)
    assert is_cut_off(report) == cut_off
    assert words in reach_in_words(report)
    finding = judge_dial_back(report)
    assert (finding is None) == (asked == 0)
    assert finding is None or (finding.state is State.ADVICE) == cut_off


def test_relayed_and_named_addresses_show_no_host() -> None:
    peer = "12D3KooW"
    assert direct_host(f"/ip6/2001:db8::7/tcp/1/p2p/{peer}") == "2001:db8::7"
    assert direct_host(f"/ip4/1.2.3.4/tcp/1/p2p/{peer}/p2p-circuit") == ""
    assert direct_host("/dns4/example.org/tcp/1") == ""
    assert direct_host("") == ""
    assert tcp_port(LOOPBACK) == 0
