"""What a coordinator's service costs: transactions a second, delay and processor at a steady load, replay, memory.

    python -m benchmarks.coordinator [--nodes 10000] [--seconds 30] [--events 1000000] [--save]

The real service on a SQLite log, asked through its own `answer`: envelopes are opened, decisions made, events logged
and fsynced, replies signed. First every node says hello and pulls, 64 requests under way at once; then pulls,
submissions and progress messages come as 10,000 nodes with one of each in five minutes would send them; then a log
of `--events` is folded anew. The nodes' own signatures are made before the clock runs.
"""

# ruff: noqa: E402 (the made-up swarm lies beside the tests)
import argparse
import asyncio
import gc
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from benchmarks.dashboard import CLUSTERS, contribution, joined
from coordinator.small_swarm import blob_named, rules, trained, unamended
from protocol.samples import COORDINATOR, SWARM

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.records_book import RecordsBook
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.sql_log import SqlLog
from kinoswarm_network.logs import log_to
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.ids import PeerId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import (
    CONTRIBUTION,
    LEASE,
    REPLY,
    REQUEST,
    Contribution,
    Hello,
    Lease,
    LeaseGrant,
    Machine,
    Progress,
    PullLease,
    Receipt,
    Request,
    RequestBody,
    Submit,
)
from kinoswarm_protocol.specs import ModeSpec

RESULT = Path(__file__).parent / "results" / "coordinator.txt"
AT_ONCE = 64
PERIOD_S = 300.0
GROUP = 10_000
MODES = [ModeSpec(name="full")]


@dataclass(frozen=True)
class Paced:
    """Answers at a steady load."""

    requests: int
    seconds: float
    processor_s: float
    delays_ms: list[float]


def main() -> None:
    arguments = parse()
    lines = head(arguments)
    with tempfile.TemporaryDirectory() as folder:
        log_to(Path(folder) / "coordinator.log")
        lines += asyncio.run(measure(arguments, Path(folder)))
        lines += replayed(arguments.events, Path(folder))
    print("\n".join(lines))
    if arguments.save:
        RESULT.write_text("\n".join(lines) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="of steady load")
    parser.add_argument("--events", type=int, default=1_000_000, help="of the log that is replayed")
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {RESULT.name}")
    return parser.parse_args()


def head(arguments: argparse.Namespace) -> list[str]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    )
    return [
        f"command: python -m benchmarks.coordinator {' '.join(sys.argv[1:])}",
        f"machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}; commit {commit.stdout.strip()}",
        f"{arguments.nodes} nodes, {CLUSTERS} clusters, SQLite in WAL mode, every answer after its fsync",
    ]


# --- requests -------------------------------------------------------------------------------------


def sealed(key: KeyPair, number: int, body: RequestBody) -> bytes:
    return seal(key, REQUEST, SWARM, Request(request_id=f"{number:032x}", body=body))


def hello(index: int) -> Hello:
    machine = Machine(device="NVIDIA GeForce RTX 3060", memory_gib=12.0, seconds_per_step=0.5)
    return Hello(
        pseudonym=f"volunteer-{index}", program_version="0.1.0", machine=machine, addresses=[]
    )


def pulls(keys: Sequence[KeyPair], first: int) -> list[bytes]:
    body = PullLease(modes=MODES, clusters_on_disk=[], seconds_per_step=0.5)
    return [sealed(key, first + index, body) for index, key in enumerate(keys)]


def submission(key: KeyPair, number: int, granted: bytes) -> bytes:
    lease = lease_of(granted)
    outcome = trained(lease)
    work = Contribution(
        lease_id=lease.lease_id, node=key.peer_id, finished_at_ms=1, outcome=outcome
    )
    return sealed(key, number, Submit(contribution=seal(key, CONTRIBUTION, SWARM, work)))


def lease_of(reply: bytes) -> Lease:
    body = open_envelope(reply, REPLY, SWARM).body.body
    assert isinstance(body, LeaseGrant), body
    return open_envelope(body.lease, LEASE, SWARM).body


# --- measuring ------------------------------------------------------------------------------------


async def measure(arguments: argparse.Namespace, folder: Path) -> list[str]:
    keys = [KeyPair(os.urandom(32)) for _ in range(arguments.nodes)]
    greetings = [sealed(key, index, hello(index)) for index, key in enumerate(keys)]
    asked = pulls(keys, 10**6)
    gc.collect()
    before = resident_mb()
    service = started(folder / "log.sqlite")
    greeting_s, _ = await all_at_once(service, greetings)
    pull_s, grants = await all_at_once(service, asked)
    state_mb = resident_mb() - before
    half = arguments.nodes // 2
    given = [submission(keys[i], 2 * 10**6 + i, grants[i]) for i in range(half)]
    submit_s, receipts = await all_at_once(service, given)
    assert all(isinstance(reply_body(raw), Receipt) for raw in receipts)
    load = steady_requests(keys, grants, arguments)
    paced = await at_pace(service, load, arguments.nodes * 3 / PERIOD_S)
    rate = (arguments.nodes + half) / (pull_s + submit_s)
    return [
        f"hello: {arguments.nodes / greeting_s:.0f} a second",
        f"lease and submit transactions: {rate:.0f} a second (goal: 1000)",
        f"memory that {arguments.nodes} nodes with a lease each added: {state_mb:.0f} MB (goal: 300)",
        f"steady load of {paced.requests / paced.seconds:.0f} requests a second for {paced.seconds:.0f} s: "
        f"{paced.processor_s / paced.seconds:.2f} of a core (goal: 0.5)",
        f"  delay of an answer: median {statistics.median(paced.delays_ms):.1f} ms, "
        f"p99 {statistics.quantiles(paced.delays_ms, n=100)[98]:.1f} ms (goal: 50)",
    ]


def started(log: Path) -> Service:
    opened = SqlLog(f"sqlite:///{log}")
    opened.lead("benchmark")
    opened.append([ev.Founded(at_ms=0, num_clusters=CLUSTERS, seed_checkpoint=blob_named("s"))])
    return Service(
        journal=Journal(opened),
        rules=rules(CLUSTERS, quorum_samples=2**50, target_version=0),
        key=COORDINATOR,
        swarm=SWARM,
        presence=Presence(),
        book=RecordsBook(key=COORDINATOR, swarm=SWARM, addresses=[]),
        in_force=unamended(),
    )


async def all_at_once(service: Service, requests: Sequence[bytes]) -> tuple[float, list[bytes]]:
    """Seconds for all, AT_ONCE under way; and the replies in order."""
    replies: list[bytes] = [b""] * len(requests)
    waiting = iter(enumerate(requests))

    async def ask() -> None:
        for index, raw in waiting:
            replies[index] = await service.answer(raw)

    started_s = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return time.perf_counter() - started_s, replies


def steady_requests(
    keys: Sequence[KeyPair], grants: Sequence[bytes], arguments: argparse.Namespace
) -> list[bytes]:
    """Submissions of nodes that still hold a lease, progress messages and pulls, in turn."""
    half, number = arguments.nodes // 2, 3 * 10**6
    found: list[bytes] = []
    for turn in range(int(arguments.seconds * arguments.nodes / PERIOD_S)):
        working, idle = half + turn % (arguments.nodes - half), turn % half
        progress = Progress(lease_id=lease_of(grants[working]).lease_id, step=turn, loss=0.4)
        body = PullLease(modes=MODES, clusters_on_disk=[], seconds_per_step=0.5)
        found.append(sealed(keys[working], number + 3 * turn, progress))
        found.append(submission(keys[working], number + 3 * turn + 1, grants[working]))
        found.append(sealed(keys[idle], number + 3 * turn + 2, body))
    return found


async def at_pace(service: Service, requests: Sequence[bytes], rate: float) -> Paced:
    """Ask at `rate` a second whatever the answers do: a slow service lets delays grow."""
    delays: list[float] = []

    async def ask(raw: bytes) -> None:
        asked_s = time.perf_counter()
        await service.answer(raw)
        delays.append((time.perf_counter() - asked_s) * 1000)

    used, began = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for index, raw in enumerate(requests):
            wait_s = began + index / rate - time.perf_counter()
            await asyncio.sleep(max(0.0, wait_s))
            tasks.create_task(ask(raw))
    seconds = time.perf_counter() - began
    return Paced(len(requests), seconds, time.process_time() - used, delays)


def replayed(num_events: int, folder: Path) -> list[str]:
    """Write a log of that many events, four a contribution, and fold it as a start does."""
    url = f"sqlite:///{folder / 'long.sqlite'}"
    log = SqlLog(url)
    log.lead("benchmark")
    peers = [PeerId("12D3KooW" + f"{index:044d}".replace("0", "A")) for index in range(1_000)]
    log.append([ev.Founded(at_ms=0, num_clusters=CLUSTERS, seed_checkpoint=blob_named("s"))])
    log.append([joined(peer, index) for index, peer in enumerate(peers)])
    group: list[ev.Event] = []
    for index in range(num_events // 4):
        group += contribution(peers[index * 7 % len(peers)], index, index)
        if len(group) >= GROUP:
            log.append(group)
            group = []
    log.append(group)
    log.close()
    again = SqlLog(url)
    started_s = time.perf_counter()
    journal = Journal(again)
    seconds = time.perf_counter() - started_s
    total = journal.state.work.total.accepted
    again.close()
    return [
        f"replay of {num_events} events: {seconds:.1f} s (goal: 60 s for a million); {total} accepted"
    ]


def reply_body(raw: bytes) -> object:
    return open_envelope(raw, REPLY, SWARM).body.body


def resident_mb() -> float:
    return psutil.Process().memory_info().rss / 1e6


if __name__ == "__main__":
    main()
