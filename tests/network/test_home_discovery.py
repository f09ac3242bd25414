"""Peers in the home network: two real nodes on loopback meet by mDNS alone; what is heard is believed within bounds."""

import asyncio
import select
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network.peers import OTHER_SWARM, SWARM, config, echo
from protocol.samples import FOUNDER, NODE

from kinoswarm_network.client import NetworkClient
from kinoswarm_network.home_discovery import believed, told

pytest.importorskip("zeroconf")
NEAR = f"/ip4/192.168.1.7/tcp/4001/p2p/{NODE.peer_id}"
FAR = f"/ip4/8.8.4.4/tcp/4001/p2p/{NODE.peer_id}"
WAIT_S = 30.0


def heard(said: dict[str, str]) -> dict[bytes, bytes | None]:
    return {key.encode(): value.encode() for key, value in said.items()}


def test_two_nodes_that_know_no_address_meet_in_their_home_network(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    async def scenario() -> None:
        first, second, foreign = await asyncio.gather(
            *(
                NetworkClient.start(config(tmp_path / name, swarm=swarm, find_at_home=True), echo)
                for name, swarm in (("1", SWARM), ("2", SWARM), ("3", OTHER_SWARM))
            )
        )
        try:
            async with asyncio.timeout(WAIT_S):
                while not (await second.traffic()).peers:
                    await asyncio.to_thread(select.select, [], [], [], 0.05)
            assert await second.control(first.peer_id, [], b"hello") == (
                second.peer_id.encode() + b" asked hello"
            )
            assert not (await foreign.traffic()).peers
        finally:
            await asyncio.gather(first.stop(), second.stop(), foreign.stop())

    runner.run(scenario())


def test_what_a_node_tells_is_what_another_of_its_swarm_believes() -> None:
    said = heard(told(SWARM, [FAR, NEAR, "/ip4/127.0.0.1/tcp/1"]))
    assert believed(said, SWARM, FOUNDER.peer_id) == [NEAR]
    assert believed(said, OTHER_SWARM, FOUNDER.peer_id) == []
    assert believed(said, SWARM, NODE.peer_id) == []


@pytest.mark.parametrize("address", [FAR, NEAR.split("/p2p/")[0], "nonsense", "", "\xff" * 300])
def test_nobody_is_led_out_of_the_home_or_to_somebody_without_a_name(address: str) -> None:
    said = heard({"swarm": SWARM, "address0": address, "address1": NEAR})
    assert believed(said, SWARM, FOUNDER.peer_id) == [NEAR]


@settings(deadline=None)
@given(st.dictionaries(st.binary(max_size=12), st.none() | st.binary(max_size=255)))
def test_nothing_that_is_heard_crashes_a_node(said: dict[bytes, bytes | None]) -> None:
    assert believed({**said, b"swarm": SWARM.encode()}, SWARM, FOUNDER.peer_id) == []
