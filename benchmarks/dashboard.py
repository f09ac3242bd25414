"""What the pages and the public API cost: size of the first view, server time in a large swarm, cached reads a second.

    python -m benchmarks.dashboard [--nodes 10000] [--contributions 250000] [--seconds 10] [--connections 16]

A swarm of that size is folded from its events (four per contribution: a million by default) and served by the program's
own application in a process of its own. A second process reads the pages over keep-alive connections, as a cache in
front of the coordinator would; meanwhile control requests go to the same server, and their times are told beside.
"""

# ruff: noqa: E402 (the made-up swarm lies beside the tests)
import argparse
import asyncio
import multiprocessing
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

import uvicorn
from coordinator.small_swarm import blob_named, rules, unamended
from protocol.samples import COORDINATOR, FOUNDER, NODE, SWARM, invite

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.event_log import MemoryLog
from kinoswarm_coordinator.fold import apply
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.records_book import RecordsBook
from kinoswarm_coordinator.service import Service, wall_clock_ms
from kinoswarm_coordinator.web.app import create_app
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_protocol.envelope import seal
from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.invite import write_invite
from kinoswarm_protocol.messages import (
    REQUEST,
    AskVerdicts,
    Lease,
    Request,
    TrainOrder,
    TrainOutcome,
    Verdict,
)
from kinoswarm_protocol.specs import ModeSpec

CLUSTERS = 8
PATHS = ["/", "/api/v1/status", "/nodes", "/verdicts", "/clusters/3", "/api/v1/verdicts"]
CACHED = ["/", "/api/v1/status"]


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen(256)
        ready = multiprocessing.get_context("fork").Event()
        server = multiprocessing.get_context("fork").Process(
            target=serve, args=(arguments, Path(folder), bound, ready), daemon=True
        )
        server.start()
        if not ready.wait(600):
            raise SystemExit("the server did not start")
        report(arguments, asyncio.run(measure(arguments, bound.getsockname()[1])), server.pid or 0)
        server.terminate()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--contributions", type=int, default=250_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=16)
    return parser.parse_args()


# --- a large swarm --------------------------------------------------------------------------------


def serve(arguments: argparse.Namespace, folder: Path, bound: socket.socket, ready) -> None:
    """Fold the swarm, then serve it; runs in a process of its own."""
    sources = large_swarm(arguments.nodes, arguments.contributions, folder)
    ready.set()
    app = create_app(sources)
    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[bound])


def large_swarm(num_nodes: int, num_contributions: int, folder: Path) -> WebSources:
    """A coordinator after that many contributions, all nodes on-line."""
    now_ms = wall_clock_ms()
    founded = rules(CLUSTERS)
    journal = Journal(MemoryLog())
    presence = Presence()
    apply(
        journal.state, ev.Founded(at_ms=0, num_clusters=CLUSTERS, seed_checkpoint=blob_named("s"))
    )
    peers = [PeerId(f"12D3KooW{index:044d}") for index in range(num_nodes)]
    for index, peer in enumerate(peers):
        apply(journal.state, joined(peer, index))
        presence.seen(peer, now_ms - index % 60_000)
    for index in range(num_contributions):
        at_ms = now_ms - (num_contributions - index) * 1_000
        for event in contribution(peers[index * 7919 % num_nodes], index, at_ms):
            apply(journal.state, event)
    service = Service(
        journal=journal,
        rules=founded,
        key=COORDINATOR,
        swarm=SWARM,
        presence=presence,
        book=RecordsBook(key=COORDINATOR, swarm=SWARM, addresses=[]),
        in_force=unamended(),
    )
    home = SwarmFolder(folder)
    return WebSources(
        service=service,
        store=BlobStore(home.store),
        folder=home,
        invite=write_invite(FOUNDER, invite()),
    )


def joined(peer: PeerId, index: int) -> ev.Event:
    return ev.NodeJoined(
        at_ms=index,
        peer=peer,
        pseudonym=f"volunteer-{index}",
        device="NVIDIA GeForce RTX 3060",
        program_version="0.1.0",
        addresses=[],
        seconds_per_step=0.5,
    )


def contribution(peer: PeerId, index: int, at_ms: int) -> list[ev.Event]:
    lease_id = LeaseId(f"{index:032x}")
    order = TrainOrder(
        cluster=index % CLUSTERS,
        lineage=0,
        base_version=0,
        base=blob_named("s"),
        mode=ModeSpec(name="full"),
        steps=600,
        batch_size=16,
        seed=index,
    )
    lease = Lease(
        lease_id=lease_id, node=peer, issued_at_ms=at_ms, deadline_ms=at_ms + 10**6, order=order
    )
    outcome = TrainOutcome(
        delta=blob_named("d"),
        delta_bytes=10**6,
        samples=9_600,
        steps=600,
        loss_first=0.5,
        loss_last=0.4,
        delta_norm=1.0,
        seconds=1_200.0,
        flops=1e15,
    )
    good = index % 20 != 0
    verdict = Verdict(
        lease_id=lease_id,
        node=peer,
        state="accepted" if good else "rejected",
        code="accepted" if good else "worse_on_heldout",
        sentence="held-out loss fell by 1.84%, from 0.5312",
        decided_at_ms=at_ms,
    )
    return [
        ev.LeaseIssued(at_ms=at_ms, lease=lease, purpose="train", request_id=lease_id),
        ev.WorkReceived(at_ms=at_ms, lease_id=lease_id, node=peer, outcome=outcome, raw=b""),
        ev.BlobsArrived(at_ms=at_ms, lease_id=lease_id),
        ev.VerdictGiven(at_ms=at_ms, verdict=verdict),
    ]


# --- measuring ------------------------------------------------------------------------------------


class Reader:
    """One keep-alive connection, HTTP/1.1 by hand: the client must not be what is measured."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> "Reader":
        self._in, self._out = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._out.close()

    async def ask(self, path: str, body: bytes = b"") -> tuple[float, int]:
        """Seconds and bytes of one answer."""
        method = "POST" if body else "GET"
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        start = time.perf_counter()
        self._out.write(head + body)
        answer = await self._in.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        size = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await self._in.readexactly(size)
        return time.perf_counter() - start, size


async def measure(arguments: argparse.Namespace, port: int) -> dict[str, object]:
    single: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    async with Reader(port) as reader:
        for path in PATHS:
            await reader.ask(path)
            single[path] = []
            for _ in range(20):
                await asyncio.sleep(0.6)  # older than a snapshot may be: every answer is made anew
                seconds, sizes[path] = await reader.ask(path)
                single[path].append(seconds)
    reads: list[float] = []
    control: list[float] = []
    deadline = time.perf_counter() + arguments.seconds
    async with asyncio.TaskGroup() as tasks:
        for number in range(arguments.connections):
            path = CACHED[number % len(CACHED)]
            tasks.create_task(read_until(deadline, port, path, reads))
        tasks.create_task(control_until(deadline, port, control))
    return {"single": single, "sizes": sizes, "reads": reads, "control": control}


async def read_until(deadline: float, port: int, path: str, found: list[float]) -> None:
    async with Reader(port) as reader:
        while time.perf_counter() < deadline:
            found.append((await reader.ask(path))[0])


async def control_until(deadline: float, port: int, found: list[float]) -> None:
    async with Reader(port) as reader:
        number = 0
        while time.perf_counter() < deadline:
            number += 1
            request = Request(request_id=f"{number:032x}", body=AskVerdicts(lease_ids=["0" * 32]))
            body = seal(NODE, REQUEST, SWARM, request)
            found.append((await reader.ask("/kinoswarm/1/control", body))[0])
            await asyncio.sleep(0.02)


def report(arguments: argparse.Namespace, found: dict, server_pid: int) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    )
    print(f"command: python -m benchmarks.dashboard {' '.join(sys.argv[1:])}")
    print(
        f"machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}; commit {commit.stdout.strip()}"
    )
    print(f"swarm: {arguments.nodes} nodes, {arguments.contributions * 4} events")
    for path, seconds in found["single"].items():
        print(
            f"{path}: made anew in {statistics.median(seconds) * 1000:.1f} ms (median), "
            f"{max(seconds) * 1000:.1f} ms (most); {found['sizes'][path] / 1000:.1f} kB"
        )
    print(f"first view with all its files: {first_view_kb(found['sizes']['/']):.0f} kB (goal: 150)")
    reads = found["reads"]
    print(
        f"cached reads: {len(reads) / arguments.seconds:.0f} a second (goal: 2000), "
        f"p99 {percentile(reads, 99):.1f} ms (goal: 50)"
    )
    print(
        f"control requests meanwhile: median {statistics.median(found['control']) * 1000:.1f} ms, "
        f"p99 {percentile(found['control'], 99):.1f} ms"
    )
    peak = Path(f"/proc/{server_pid}/status").read_text().split("VmHWM:")[1].split()[0]
    print(f"server's peak memory: {int(peak) / 1000:.0f} MB; reader's: {resource_mb():.0f} MB")


def first_view_kb(page_bytes: int) -> float:
    from kinoswarm_coordinator.web.assets import load_assets

    return (page_bytes + sum(len(asset.data) for asset in load_assets().files.values())) / 1000


def percentile(seconds: list[float], percent: int) -> float:
    """In milliseconds."""
    return statistics.quantiles(seconds, n=100)[percent - 1] * 1000


def resource_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
