"""A node's whole life over HTTPS on a Windows that native_windows_show.py shows to Kinoswarm's code alone."""

import asyncio
import os
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from e2e.processes import SHARED_MACHINE
from node.web_swarm import WebSwarm, web_swarm

from kinoswarm_node.node_status import read_status
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.messages import TrainOutcome

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        sys.platform != "linux", reason="the show of Windows needs Linux beneath it"
    ),
]
LIMIT_S = 200.0
SITE = """
import os
os.environ["NATIVE_WINDOWS_LOG"], os.environ["NATIVE_WINDOWS_ROOT"] = {log!r}, {root!r}
import node.native_windows_show
"""
ASKED_AND_DONE_WITHOUT = {
    "kinoswarm_network.partial_blob os.fdatasync",
    "kinoswarm_node.desktop_bus import jeepney",
}
"""What our code may look for: it has another way where that is not there."""


@dataclass
class Windows:
    """One home on it."""

    root: Path
    running: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.root / "home"

    async def start(self, *words: str, **settings: str) -> asyncio.subprocess.Process:
        env = {
            **os.environ,
            **SHARED_MACHINE,
            **settings,
            "PYTHONPATH": os.pathsep.join([str(self.root / "site"), *sys.path]),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kinoswarm_cli.main", *words, "--home", str(self.home)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=env,
        )
        self.running.append(process)
        return process

    async def run(self, *words: str) -> str:
        """What a command says."""
        process = await self.start(*words)
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        return said.decode()

    def asked_in_vain(self) -> set[str]:
        lines = (self.root / "asked").read_text().splitlines()
        return {line for line in lines if not line.startswith("started")} - ASKED_AND_DONE_WITHOUT

    def started(self) -> str:
        return (self.root / "asked").read_text()


async def read_until(process: asyncio.subprocess.Process, words: str) -> str:
    """Its output up to a line with `words`."""
    assert process.stdout is not None
    said = ""
    async for line in process.stdout:
        said += line.decode()
        if words in said:
            return said
    raise AssertionError(f"no {words!r} in: {said}")


@pytest.fixture
def windows(tmp_path: Path) -> Windows:
    found = Windows((tmp_path / "pc").resolve())
    (found.root / "site").mkdir(parents=True)
    text = SITE.format(log=str(found.root / "asked"), root=str(found.root))
    (found.root / "site" / "sitecustomize.py").write_text(text)
    return found


def test_a_node_lives_its_life_on_windows_with_nothing_of_posix(windows: Windows) -> None:
    async def life(swarm: WebSwarm) -> None:
        flags = ("--yes", "--go", "--threads", "1", "--device", "cpu")
        node = await windows.start(
            *("join", swarm.invite_text(), *flags),
            KINOSWARM_NODE_NICE="10",
            KINOSWARM_NODE_SHARE_PERCENT="70",
            KINOSWARM_NODE_PAGE_PORT="7420",
        )
        said = await read_until(node, "Accepted")
        assert "Got a segment" in said
        (contribution,) = swarm.world.contributions.values()
        assert isinstance(contribution.outcome, TrainOutcome)
        assert swarm.store.path_of(BlobId(contribution.outcome.delta)) is not None, "brought here"
        await windows.run("pause")
        await read_until(node, "Paused by you")
        why = " ".join((await windows.run("why")).split())
        assert "Slowed to 70%, as you set." in why
        assert "The worker: priority lowered to idle, the network stays" in why
        assert "last touched: 7 s ago, fullscreen: no" in why
        assert (windows.home / "page.json").exists()
        await windows.run("resume")
        await read_until(node, "Going on.")
        assert "leaves now" in await windows.run("leave")
        said = await read_until(node, "you asked with `kinoswarm leave`")
        await node.communicate()
        assert node.returncode == 0, said
        report = windows.root / "report.zip"
        await windows.run("report", "--out", str(report))
        assert "status.json" in zipfile.ZipFile(report).namelist()

    async def scenario() -> None:
        async with asyncio.timeout(LIMIT_S), web_swarm(windows.root.parent, steps=12) as swarm:
            try:
                await life(swarm)
            finally:
                for process in windows.running:
                    if process.returncode is None:
                        process.kill()

    asyncio.run(scenario())
    assert "-m kinoswarm_model.worker" in windows.started(), "the worker saw Windows too"
    assert "started with priority 64" in windows.started()
    assert windows.asked_in_vain() == set()
    assert read_status(windows.home / "status.json").accepted == 1
    assert not list(windows.home.rglob("network.log"))
    names = [path.name for path in windows.home.rglob("*")]
    assert not [name for name in names if set(name) & set('<>:"|?*\\') or name[-1] in ". "]
