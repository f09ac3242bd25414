"""A download over py-libp2p beside one over p2pd: the same blob from the same peer over loopback, in turns.

    python benchmarks/light.py [--megabytes 256] [--rounds 5]

Prints the medians and their ratio: the speed of the pure Python client is its own, the ratio holds on other machines.
"""

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from kinoswarm_network.client import NetworkClient, NetworkConfig
from kinoswarm_network.light_client import LightClient
from kinoswarm_protocol.errors import Code, Refused
from kinoswarm_protocol.ids import BlobId, PeerId, SwarmId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import ProviderHint

_KEY = KeyPair(bytes(32))
_PIECE = 16 * 1024 * 1024


def config(home: Path, **changes: object) -> NetworkConfig:
    """A process of one swarm that nobody else knows."""
    given: dict[str, object] = {
        "home": str(home),
        "swarm": SwarmId("ab" * 32),
        "key_file": str(home / "key"),
        "founder": _KEY.peer_id,
        "coordinators": [_KEY.peer_id],
        "listen": [],
        "client_mode": True,
    }
    return NetworkConfig(**{**given, **changes})  # type: ignore[arg-type]


async def answer_nobody(peer: PeerId, request: bytes) -> bytes:
    raise Refused(Code.NOT_PERMITTED, "this is a benchmark")


async def over_p2pd(home: Path, blob: BlobId, source: ProviderHint) -> float:
    """Seconds of the download itself; the process is up before."""
    client = await NetworkClient.start(config(home), answer_nobody)
    try:
        started = time.perf_counter()
        await client.fetch_blob(blob, [source])
        return time.perf_counter() - started
    finally:
        await client.stop()


async def over_py_libp2p(home: Path, blob: BlobId, source: ProviderHint) -> float:
    """The same with the light process."""
    client = await LightClient.start(config(home))
    try:
        started = time.perf_counter()
        await client.fetch_blob(blob, [source])
        return time.perf_counter() - started
    finally:
        await client.stop()


WAYS: dict[str, Callable[[Path, BlobId, ProviderHint], Awaitable[float]]] = {
    "p2pd": over_p2pd,
    "py-libp2p": over_py_libp2p,
}


async def measure(folder: Path, megabytes: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round, by way."""
    path = folder / "blob"
    with path.open("wb") as file:
        left = megabytes * 1_000_000
        while left:
            left -= file.write(os.urandom(min(_PIECE, left)))
    source = config(folder / "source", listen=["/ip4/127.0.0.1/tcp/0"], client_mode=False)
    serving = await NetworkClient.start(source, answer_nobody)
    try:
        blob = await serving.add_blob(path)
        hint = ProviderHint(peer=serving.peer_id, addresses=serving.addresses)
        took: dict[str, list[float]] = {name: [] for name in WAYS}
        for number in range(rounds):
            for name, fetch in WAYS.items():
                took[name].append(await fetch(folder / f"{name}-{number}", blob, hint))
        return took
    finally:
        await serving.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kinoswarm-light-") as folder:
        took = asyncio.run(measure(Path(folder), asked.megabytes, asked.rounds))
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(f"python {' '.join(sys.argv)}")
    cores = os.cpu_count()
    print(
        f"{platform.system()} {platform.machine()}, {cores} cores, Python {platform.python_version()}, commit {commit}"
    )
    speed = {name: asked.megabytes / median(seconds) for name, seconds in took.items()}
    for name, seconds in took.items():
        spread = f"{asked.megabytes / max(seconds):.0f}-{asked.megabytes / min(seconds):.0f}"
        print(f"{name:10} {speed[name]:7.1f} MB/s (median of {asked.rounds}; {spread})")
    print(f"py-libp2p ÷ p2pd: {speed['py-libp2p'] / speed['p2pd']:.2f}")


if __name__ == "__main__":
    main()
