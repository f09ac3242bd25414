"""A node that joins, trains and hands in over HTTP(S) because every peer is dead; test_native_windows.py wants to."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from e2e.processes import SHARED_MACHINE
from node.web_swarm import DEAD_PEER, WebSwarm, web_swarm

from kinoswarm_node.node_status import read_status
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.messages import TrainOutcome

pytestmark = pytest.mark.e2e
LIMIT_S = 150.0
LEASE_0 = f"{0:032x}"


async def join_until_accepted(invite: str, home: Path, *flags: str) -> None:
    """Run `kinoswarm join --once`."""
    node = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "kinoswarm_cli.main", "join", invite, "--home", str(home), "--yes", "--go"),
        *("--threads", "1", "--device", "cpu", "--once", *flags),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            **SHARED_MACHINE,
        },
    )
    _, said = await node.communicate()
    assert node.returncode == 0, said.decode()


def assert_handed_in(swarm: WebSwarm, home: Path) -> None:
    outcome = swarm.world.contributions[LEASE_0].outcome
    assert isinstance(outcome, TrainOutcome)
    path = swarm.store.path_of(BlobId(outcome.delta))
    assert path is not None
    assert path.stat().st_size == outcome.delta_bytes
    status = read_status(home / "status.json")
    assert (status.state, status.accepted) == ("stopped", 1)


def test_with_every_bootstrap_peer_dead_a_node_joins_works_and_hands_in_over_http(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(LIMIT_S), web_swarm(tmp_path / "swarm", steps=4) as swarm:
            home = tmp_path / "home"
            listen = ("--listen", "/ip4/127.0.0.1/tcp/0")
            await join_until_accepted(swarm.invite_text(DEAD_PEER), home, *listen)
            assert_handed_in(swarm, home)

    asyncio.run(scenario())
