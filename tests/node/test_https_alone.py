"""A node that joins, trains and hands in over HTTP(S) alone: because it wants to, or because every peer is dead."""

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest
from e2e.processes import SHARED_MACHINE
from node.web_swarm import DEAD_PEER, WebSwarm, web_swarm

from kinoswarm_node.node_status import read_status
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.messages import TrainOutcome

pytestmark = pytest.mark.e2e
LIMIT_S = 150.0
LEASE_0 = f"{0:032x}"

BLOCKER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hivemind", "libp2p"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
"""


async def join_until_accepted(
    swarm: WebSwarm, invite: str, home: Path, *flags: str, blocker: Path | None = None
) -> str:
    """Run `kinoswarm join --once`; everything that it said."""
    search = [str(blocker)] if blocker else []
    node = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "kinoswarm_cli.main", "join", invite, "--home", str(home), "--yes", "--go"),
        *("--threads", "1", "--device", "cpu", "--once", *flags),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*search, *sys.path]),
            **SHARED_MACHINE,
        },
    )
    names: set[str] = set()
    said = bytearray()
    assert node.stderr
    async for line in node.stderr:
        said += line
        family = psutil.Process(node.pid).children(recursive=True) if b"Training" in line else []
        names |= {" ".join(process.cmdline()) for process in family}
    await node.communicate()
    text = said.decode()
    assert node.returncode == 0, text
    assert blocker is None or not any("kinoswarm_network" in n or "p2pd" in n for n in names)
    return text


def assert_handed_in(swarm: WebSwarm, home: Path) -> None:
    outcome = swarm.world.contributions[LEASE_0].outcome
    assert isinstance(outcome, TrainOutcome)
    path = swarm.store.path_of(BlobId(outcome.delta))
    assert path is not None
    assert path.stat().st_size == outcome.delta_bytes
    status = read_status(home / "status.json")
    assert (status.state, status.accepted) == ("stopped", 1)


def test_an_https_only_node_works_with_hivemind_and_its_daemon_absent(tmp_path: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(BLOCKER)

    async def scenario() -> None:
        async with asyncio.timeout(LIMIT_S), web_swarm(tmp_path / "swarm", steps=4) as swarm:
            home = tmp_path / "home"
            await join_until_accepted(
                swarm, swarm.invite_text(), home, "--https-only", blocker=blocker
            )
            assert_handed_in(swarm, home)
            assert not (home / "network.log").exists()

    asyncio.run(scenario())


def test_with_every_bootstrap_peer_dead_a_node_joins_works_and_hands_in_over_http(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(LIMIT_S), web_swarm(tmp_path / "swarm", steps=4) as swarm:
            home = tmp_path / "home"
            listen = ("--listen", "/ip4/127.0.0.1/tcp/0")
            await join_until_accepted(swarm, swarm.invite_text(DEAD_PEER), home, *listen)
            assert_handed_in(swarm, home)

    asyncio.run(scenario())
