"""The doctor against real peers: a dead bootstrap peer beside a living one, and a clock that is off."""

import asyncio
import sys
from pathlib import Path

from msgspec import structs
from network.peers import COORDINATOR, FOUNDER, NOBODY, SWARM, Nodes, config, echo
from network.test_life_of_the_process import LATE_CLOCK
from protocol.samples import invite

from kinoswarm_network.client import NetworkClient
from kinoswarm_node.checkup import Finding, State
from kinoswarm_node.checkup_probes import examine_swarm
from kinoswarm_protocol.invite import Invite


def invite_with(addresses: list[str]) -> Invite:
    return structs.replace(
        invite(),
        swarm=SWARM,
        founder=FOUNDER.peer_id,
        coordinators=[COORDINATOR.peer_id],
        addresses=addresses,
    )


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_each_address_is_tried_and_one_is_enough(runner: asyncio.Runner, nodes: Nodes) -> None:
    web = "http://127.0.0.1:1"
    alive = nodes.first.addresses[0]
    found = by_name(runner.run(examine_swarm(invite_with([NOBODY, alive, web]))))
    assert "nobody listens there" in found[NOBODY].sentence
    assert found[alive].state is State.FINE
    assert found[web].state is State.ADVICE
    assert found["way to the swarm"].sentence.startswith("1 of 3")
    assert found["clock"].state is State.FINE


def test_a_swarm_that_is_gone_is_told_from_a_machine_that_is_wrong(runner: asyncio.Runner) -> None:
    found = by_name(runner.run(examine_swarm(invite_with([NOBODY]))))
    assert found["way to the swarm"].state is State.WRONG
    assert "clock" not in found


def test_a_wrong_clock_is_told_with_what_to_do(runner: asyncio.Runner, tmp_path: Path) -> None:
    program = [sys.executable, "-c", LATE_CLOCK, "10"]

    async def meet() -> list[Finding]:
        other = await NetworkClient.start(config(tmp_path), echo, program=program)
        try:
            return await examine_swarm(invite_with(other.addresses[:1]))
        finally:
            await other.stop()

    clock = by_name(runner.run(meet()))["clock"]
    assert clock.state is State.WRONG
    assert "NTP" in clock.to_do
