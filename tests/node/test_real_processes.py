"""`kinoswarm join` with real processes: network, DHT, worker, tiny model; the coordinator's answers are scripted."""

import asyncio
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from e2e.processes import SHARED_MACHINE
from node.real_swarm import LOOPBACK, RealSwarm, real_swarm

from kinoswarm_node.node_status import read_status

pytestmark = pytest.mark.e2e
LIMIT_S = 150.0
LEASE_0 = f"{0:032x}"


async def start_join(
    swarm: RealSwarm, home: Path, *flags: str, listen: str = LOOPBACK, **environment: str
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kinoswarm_cli.main",
        "join",
        swarm.invite_text,
        *("--home", str(home), "--yes", "--go", "--threads", "1", "--device", "cpu"),
        *("--listen", listen, *flags),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            **SHARED_MACHINE,
            **environment,
        },
    )


async def said(process: asyncio.subprocess.Process, text: str) -> list[str]:
    """Its lines until one contains `text`."""
    assert process.stderr
    lines: list[str] = []
    async for raw in process.stderr:
        lines.append(raw.decode())
        if text in lines[-1]:
            return lines
        assert "failed" not in lines[-1], lines
    raise AssertionError(f"it ended without saying {text!r}:\n{''.join(lines)}")


def family(process: asyncio.subprocess.Process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def within_limit(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S):
            await test()

    asyncio.run(bounded())


def test_one_command_joins_trains_delivers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with real_swarm(tmp_path / "swarm", steps=4) as swarm:
            node = await start_join(swarm, tmp_path / "home", "--once")
            await said(node, "The swarm has the result")
            delta = await swarm.fetch_delta(LEASE_0)
            assert delta.stat().st_size > 0
            children = family(node)
            _, err = await node.communicate()
            assert node.returncode == 0, err.decode()
            assert not psutil.wait_procs(children, timeout=0)[1]
        status = read_status(tmp_path / "home" / "status.json")
        assert (status.state, status.accepted) == ("stopped", 1)
        assert status.last_verdict == "the held-out loss went down"

    within_limit(scenario)


def test_a_killed_node_goes_on_with_its_segment(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with real_swarm(tmp_path / "swarm", steps=400) as swarm:
            home = tmp_path / "home"
            fast = {"KINOSWARM_NODE_RESUME_EVERY_S": "1"}
            node = await start_join(swarm, home, "--once", **fast)
            await said(node, "Training on")
            await resume_point(home)
            children = family(node)
            node.send_signal(signal.SIGKILL)
            await node.communicate()
            assert not psutil.wait_procs(children, timeout=10)[1]
            again = await start_join(swarm, home, "--once", **fast)
            lines = await said(again, "The swarm has the result")
            assert any("The segment from before is still wanted" in line for line in lines)
            _, err = await again.communicate()
            assert again.returncode == 0, err.decode()
            assert len(swarm.world.leases_by_request) == 1

    within_limit(scenario)


async def resume_point(home: Path) -> None:
    """Return when the worker has saved something to resume from."""
    while not list(home.glob("swarms/*/work/*/*")):
        await asyncio.to_thread(select.select, [], [], [], 0.05)


def test_ctrl_c_saves_and_ends_everything(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with real_swarm(tmp_path / "swarm", steps=100_000) as swarm:
            node = await start_join(swarm, tmp_path / "home")
            await said(node, "Training on")
            children = family(node)
            assert children
            node.send_signal(signal.SIGINT)
            _, err = await node.communicate()
            assert node.returncode == 130
            assert "goes on at the next start" in err.decode()
            assert not psutil.wait_procs(children, timeout=0)[1]

    within_limit(scenario)


async def worker_of(node: asyncio.subprocess.Process) -> psutil.Process:
    """The worker process, once there is one."""
    while True:
        for process in family(node):
            if "kinoswarm_model.worker" in " ".join(process.cmdline()):
                return process
        await asyncio.to_thread(select.select, [], [], [], 0.05)


def test_a_game_has_the_memory_within_two_seconds_and_its_end_resumes_the_segment(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        game = tmp_path / "kinogame"
        shutil.copy("/bin/sleep", game)
        rules = {
            "KINOSWARM_NODE_QUIET_PROGRAMS": '["kinogame"]',
            "KINOSWARM_NODE_CALM_S": "1",
            "KINOSWARM_NODE_RESUME_EVERY_S": "1",
        }
        async with real_swarm(tmp_path / "swarm", steps=100_000) as swarm:
            node = await start_join(swarm, tmp_path / "home", **rules)
            await said(node, "Training on")
            await resume_point(tmp_path / "home")
            worker = await worker_of(node)
            played = await asyncio.create_subprocess_exec(str(game), "600")
            started_s = time.monotonic()
            await asyncio.to_thread(worker.wait, 10)
            assert time.monotonic() - started_s < 2.0
            await said(node, "kinogame runs, and you want quiet for it")
            played.kill()
            await played.wait()
            lines = await said(node, "Training on")
            assert any("still wanted" in line for line in lines)
            assert (await worker_of(node)).pid != worker.pid
            node.send_signal(signal.SIGTERM)
            await node.communicate()

    within_limit(scenario)


@pytest.mark.slow
def test_a_share_of_the_time_is_a_share_of_the_processor(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with real_swarm(tmp_path / "swarm", steps=100_000) as swarm:
            node = await start_join(swarm, tmp_path / "home", KINOSWARM_NODE_SHARE_PERCENT="40")
            await said(node, "Training on")
            worker = await worker_of(node)
            before, started_s = worker.cpu_times(), time.monotonic()
            await asyncio.to_thread(select.select, [], [], [], 3.0)
            after, seconds = worker.cpu_times(), time.monotonic() - started_s
            used = (after.user + after.system - before.user - before.system) / seconds
            assert used < 0.6, "one thread that may compute two fifths of the time"
            node.send_signal(signal.SIGTERM)
            _, err = await node.communicate()
            assert b"segment is saved" in err

    within_limit(scenario)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with real_swarm(tmp_path / "swarm", steps=4) as swarm:
            with socket.create_server(("127.0.0.1", 0)) as other:
                taken = f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}"
                node = await start_join(swarm, tmp_path / "home", listen=taken)
                _, err = await node.communicate()
            assert node.returncode == 3
            assert "cannot listen on" in err.decode()
            assert "the port is taken by another program" in err.decode()

    within_limit(scenario)
