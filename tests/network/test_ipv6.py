"""A swarm over IPv6 alone, and over both: real peers on ::1 join, ask, dial back, fetch; addresses in their order."""

import asyncio
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network.peers import config, echo, provider

from kinoswarm_network.client import NetworkClient
from kinoswarm_network.listening import bound_socket
from kinoswarm_network.multiaddresses import farthest_first, port_for

ONLY_6, BOTH = ["/ip6/::1/tcp/0"], ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@needs_ipv6
def test_two_nodes_on_ipv6_alone_join_ask_dial_back_and_fetch(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    async def scenario() -> None:
        first = await NetworkClient.start(config(tmp_path / "first", listen=ONLY_6), echo)
        given = config(tmp_path / "second", listen=BOTH, bootstrap=first.addresses)
        second = await NetworkClient.start(given, echo)
        try:
            assert all(address.startswith("/ip6/::1/tcp/") for address in first.addresses)
            answer = await second.control(first.peer_id, first.addresses, b"six")
            assert answer.endswith(b" asked six")
            report = await second.reach()
            assert (report.reached, report.host) == (True, "::1")
            assert report.port == port_for("::1", second.addresses)
            (tmp_path / "source").write_bytes(b"over six" * 500_000)
            blob = await first.add_blob(tmp_path / "source")
            path = await second.fetch_blob(blob, [provider(first)])
            assert path.read_bytes() == b"over six" * 500_000
        finally:
            await asyncio.gather(first.stop(), second.stop())

    runner.run(scenario())


@needs_ipv6
def test_a_page_that_listens_everywhere_is_reached_over_both(runner: asyncio.Runner) -> None:
    async def reached(port: int, host: str) -> bool:
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        return True

    with bound_socket("::", 0, "choose another port") as listening:
        listening.listen()
        port = listening.getsockname()[1]
        assert runner.run(reached(port, "127.0.0.1"))
        assert runner.run(reached(port, "::1"))


def test_an_address_that_this_machine_lacks_does_no_harm_beside_one_that_it_has(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    async def scenario() -> list[str]:
        listen = ["/ip4/127.0.0.1/tcp/0", "/ip6/2001:db8::5/tcp/0"]
        node = await NetworkClient.start(config(tmp_path / "node", listen=listen), echo)
        try:
            return node.addresses
        finally:
            await node.stop()

    [address] = runner.run(scenario())
    assert address.startswith("/ip4/127.0.0.1/")


def test_addresses_that_lead_the_farthest_come_first() -> None:
    near, home = "/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.7/tcp/1"
    far, six, local = "/ip4/8.8.4.4/tcp/1", "/ip6/2600::7/tcp/2", "/ip6/fe80::1/tcp/2"
    name = "/dns/example.org/tcp/1"
    assert farthest_first([near, local, home, far, name, six]) == [
        far,
        name,
        six,
        home,
        near,
        local,
    ]


@settings(deadline=None)
@given(st.lists(st.text(max_size=40)))
def test_no_address_is_lost_by_ordering(addresses: list[str]) -> None:
    assert sorted(farthest_first(addresses)) == sorted(addresses)


def test_a_peer_seen_over_ipv6_is_told_the_port_that_listens_there() -> None:
    own = ["/ip4/127.0.0.1/tcp/41/p2p/x", "/ip6/::1/tcp/46/p2p/x", "/ip4/1.2.3.4/udp/9/quic-v1"]
    assert (port_for("10.0.0.1", own), port_for("fd00::1", own)) == (41, 46)
    assert (port_for("::1", own[:1]), port_for("", own)) == (0, 0)
