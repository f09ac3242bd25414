"""docs/first-hour.md happens as it is written: go, a game, the battery, kill -9, an accepted and a rejected segment.

The coordinator's answers are scripted; network, worker, training, sensors' watch and files are real. The battery is a
file that stands in for the laptop's.
"""

import asyncio
import os
import re
import select
import shutil
import signal
import sys
from pathlib import Path

import pytest
from e2e.processes import SHARED_MACHINE
from node.real_swarm import LOOPBACK, RealSwarm, real_swarm

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DOCUMENT = Path(__file__).parents[2] / "docs" / "first-hour.md"
LIMIT_S = 540.0
PROGRAM = """
import sys
from pathlib import Path
from types import SimpleNamespace
import psutil
battery = Path(sys.argv.pop(1))
def sensors_battery():
    return SimpleNamespace(power_plugged=not battery.exists(), percent=64.0)
psutil.sensors_battery = sensors_battery
from kinoswarm_cli.main import main
main()
"""


class Volunteer:
    """Somebody at one machine: types commands, reads what comes."""

    def __init__(self, swarm: RealSwarm, folder: Path) -> None:
        self.swarm, self.folder, self.home = swarm, folder, folder / "home"
        self.battery = folder / "on-battery"
        self.lines: list[str] = []
        self.node: asyncio.subprocess.Process | None = None

    async def type(self, *words: str) -> str:
        """A command that ends; its output is read like everything else."""
        process = await self._start(*words, "--home", str(self.home))
        out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()
        self.lines += out.decode().splitlines()
        return out.decode()

    async def join(self, *words: str) -> None:
        flags = ("--home", str(self.home), "--threads", "1", "--device", "cpu")
        self.node = await self._start("join", *words, *flags, "--listen", LOOPBACK)

    async def read_until(self, text: str) -> None:
        """Read what the node says until a line has `text`."""
        assert self.node is not None
        assert self.node.stdout is not None
        async for raw in self.node.stdout:
            self.lines.append(raw.decode().rstrip())
            if text in self.lines[-1]:
                return
        raise AssertionError(f"it ended without saying {text!r}:\n" + "\n".join(self.lines))

    async def end(self, number: signal.Signals) -> None:
        assert self.node is not None
        self.node.send_signal(number)
        out, _ = await self.node.communicate()
        self.lines += out.decode().splitlines()

    async def _start(self, *words: str) -> asyncio.subprocess.Process:
        rules = {
            **SHARED_MACHINE,
            "KINOSWARM_NODE_ON_BATTERY": "false",
            "KINOSWARM_NODE_QUIET_PROGRAMS": '["kinogame"]',
            "KINOSWARM_NODE_CALM_S": "1",
            "KINOSWARM_NODE_RESUME_EVERY_S": "1",
        }
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, str(self.battery), *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **rules},
        )


async def first_hour(you: Volunteer) -> None:
    """The document's story."""
    world = you.swarm.world
    world.num_leases = 2
    await you.join(you.swarm.invite_text, "--yes")
    await you.read_until("before you say go")
    await you.type("resume")
    await you.read_until("Training on")
    world.steps = 300  # the second segment: the first one's verdict is read before it is done
    await saved(you.home)

    game = you.folder / "kinogame"
    shutil.copy("/bin/sleep", game)
    played = await asyncio.create_subprocess_exec(str(game), "600")
    await you.read_until("kinogame runs")
    played.kill()
    await played.wait()
    await you.read_until("Training on")

    you.battery.touch()
    await you.read_until("runs on its battery")
    you.battery.unlink()
    await you.read_until("Training on")

    await you.end(signal.SIGKILL)
    await you.join()
    await you.read_until("Accepted: ")
    world.verdict = "rejected"
    await you.read_until("Not accepted: ")
    await you.type("why")
    await you.end(signal.SIGTERM)


async def saved(home: Path) -> None:
    while not list(home.glob("swarms/*/work/*/resume-*")):
        await asyncio.to_thread(select.select, [], [], [], 0.05)


def comparable(line: str) -> str:
    """Without times of day and measured numbers, which differ from machine to machine."""
    line = re.sub(r"^\d\d:\d\d:\d\d ", "", line.strip())
    line = re.sub(r"^\d+ (s|min|h|days) ago", "some time ago", line)
    return re.sub(r"\d+(\.\d+)?", "N", line)


def told_in(document: str) -> list[str]:
    """The lines that the document says the program prints: those of its blocks that are no commands."""
    blocks = re.findall(r"^```text\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("$ ") and line != "…"]


def test_the_first_hour_happens_as_it_is_written(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        async with (
            asyncio.timeout(LIMIT_S),
            real_swarm(tmp_path / "swarm", steps=1500) as swarm,
        ):
            you = Volunteer(swarm, tmp_path)
            try:
                await first_hour(you)
            finally:
                (tmp_path / "transcript.txt").write_text("\n".join(you.lines))
                if you.node is not None and you.node.returncode is None:
                    you.node.kill()
            return you.lines

    said = iter([comparable(line) for line in asyncio.run(scenario())])
    for line in told_in(DOCUMENT.read_text()):
        assert comparable(line) in said, f"not said, or not in this order: {line}"
