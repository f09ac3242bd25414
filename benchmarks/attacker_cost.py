"""What one attacker can cost a coordinator: processor per hostile request, and the bounds that stop it.

    python -m benchmarks.attacker_cost [--requests 2000] [--out FILE]

The real service on a SQLite log is asked through its own `answer`; processor time of the whole process a request. The
limits beside the figures are those of the code: requests a second of one address, uploads of one lease, refusals in a
row before a ban.
"""

# ruff: noqa: E402 (the made-up swarm lies beside the tests)
import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from benchmarks.coordinator import hello, sealed, started

from kinoswarm_coordinator.settings import CoordinatorSettings
from kinoswarm_coordinator.trust import MOST_REFUSED
from kinoswarm_network.logs import log_to
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.limits import MAX_CONTROL_FRAME
from kinoswarm_protocol.log_head import LOG_KEY
from kinoswarm_protocol.messages import AskVerdicts, Lookup, Progress, PullLease, Submit
from kinoswarm_protocol.specs import ModeSpec

PULL = PullLease(modes=[ModeSpec(name="full")], clusters_on_disk=[], seconds_per_step=0.5)
ATTACKER = KeyPair(bytes([9] * 32))


def requests() -> dict[str, Callable[[int], bytes]]:
    """Hostile requests by name; the number makes them differ."""
    good = sealed(ATTACKER, 1, hello(1))
    noise = os.urandom(MAX_CONTROL_FRAME)
    return {
        "noise, the largest frame": lambda number: noise,
        "a frame beyond the limit": lambda number: noise + b"\0",
        "a signature that is wrong": lambda number: good[:-1] + bytes([good[-1] ^ 1]),
        "a pull by a stranger": lambda number: sealed(ATTACKER, number, PULL),
        "a contribution of noise": lambda number: sealed(
            ATTACKER, number, Submit(contribution=noise[:100_000])
        ),
        "progress of no lease": lambda number: sealed(
            ATTACKER, number, Progress(lease_id=f"{number:032x}", step=1, loss=None)
        ),
        "verdicts of no work": lambda number: sealed(
            ATTACKER, number, AskVerdicts(lease_ids=[f"{number:032x}"] * 64)
        ),
        "a look-up of nothing": lambda number: sealed(ATTACKER, number, Lookup(key="poem")),
        "a look-up of the log": lambda number: sealed(ATTACKER, number, Lookup(key=LOG_KEY)),
        "a hello of a fresh identity": lambda number: sealed(
            KeyPair(number.to_bytes(32, "big")), number, hello(number % 1_000)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2_000, help="of each kind")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log_to(Path(folder) / "coordinator.log")
        lines = [*head(), *asyncio.run(measured(Path(folder), options.requests)), *limits()]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


def head() -> list[str]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    )
    return [
        f"command: python -m benchmarks.attacker_cost {' '.join(sys.argv[1:])}",
        f"machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}; commit {commit.stdout.strip()}",
    ]


async def measured(folder: Path, count: int) -> list[str]:
    service, per_s = started(folder / "log.sqlite"), CoordinatorSettings().control_per_s
    lines = [f"processor a request, and of one core at one address's limit of {per_s:g} a second:"]
    for name, make in requests().items():
        made = [make(number) for number in range(1, count + 1)]
        before, sent = time.process_time(), 0
        for raw in made:
            sent += len(await service.answer(raw))
        each_s = (time.process_time() - before) / count
        lines.append(
            f"  {name:<28}{each_s * 1e3:8.2f} ms {each_s * per_s:7.1%}   {len(made[0]):>8} bytes in, "
            f"{sent / count:6.0f} out"
        )
    return lines


def limits() -> list[str]:
    return [
        "bounds:",
        f"  a request is at most {MAX_CONTROL_FRAME} bytes, and is refused by its size before it is read further",
        "  an upload is at most what the lease's model needs and only while a contribution waits for it",
        f"  held-out tests before a ban: {MOST_REFUSED} refused contributions in a row; a ban doubles each time",
    ]


if __name__ == "__main__":
    main()
