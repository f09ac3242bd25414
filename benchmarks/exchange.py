"""How fast blobs move: beside a raw stream; from one node to many, beside HTTP and libtorrent; and in what memory.

    python benchmarks/exchange.py single [--megabytes 512] [--rounds 5]
    python benchmarks/exchange.py many [--megabytes 64] [--nodes 8] [--link-megabytes 4] [--rounds 1]
    python benchmarks/exchange.py memory [--megabytes 2048]
    python benchmarks/exchange.py ways [--megabytes 128] [--rounds 5]

single: one download on loopback and, in turn, as many bytes over a bare hivemind stream between two processes: once
dropped as they come, once hashed, written to a file and synced, which is the least that a download must do.
many: every link is capped by the token bucket, both ways; the ideal is size / link. libtorrent gets the same caps
(pip install 'kinoswarm[bench]'); the HTTP server sends through one bucket. memory: what the two processes grow by.
ways: the same download over TCP on IPv4, TCP on IPv6 and QUIC, in turns.
"""

import argparse
import asyncio
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO

import psutil

from kinoswarm_network.client import NetworkClient, NetworkConfig, Provider
from kinoswarm_network.daemon import DaemonFiles
from kinoswarm_network.hivemind_parts import load_hivemind
from kinoswarm_network.host import Host
from kinoswarm_network.identity import load_or_create_key, write_libp2p_identity
from kinoswarm_network.rate_caps import TokenBucket
from kinoswarm_network.streams import Stream
from kinoswarm_protocol.ids import PeerId, SwarmId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.limits import MIB

SWARM = SwarmId("ab" * 32)
FOUNDER = KeyPair(bytes(range(32))).peer_id
RAW = "/kinoswarm-bench/raw"
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
WAYS = {
    "TCP, IPv4": LOOPBACK,
    "TCP, IPv6": "/ip6/::1/tcp/0",
    "QUIC": "/ip4/127.0.0.1/udp/0/quic-v1",
}
WAIT_S = 600.0


def config(home: Path, bytes_per_s: int = 0, listen: str = LOOPBACK) -> NetworkConfig:
    return NetworkConfig(
        home=str(home),
        swarm=SWARM,
        key_file=str(home / "key"),
        founder=FOUNDER,
        coordinators=[FOUNDER],
        listen=[listen],
        up_bytes_per_s=bytes_per_s,
        down_bytes_per_s=bytes_per_s,
    )


async def no_service(peer: PeerId, request: bytes) -> bytes:
    return b""


@asynccontextmanager
async def nodes(
    folder: Path, count: int, bytes_per_s: int = 0, listen: str = LOOPBACK
) -> AsyncIterator[list[NetworkClient]]:
    """Network processes that know nothing of each other yet."""
    started: list[NetworkClient] = []
    try:
        for number in range(count):
            started.append(
                await NetworkClient.start(
                    config(folder / str(number), bytes_per_s, listen), no_service
                )
            )
        yield started
    finally:
        await asyncio.gather(*(node.stop() for node in started))


def provider(node: NetworkClient) -> Provider:
    return Provider(peer=node.peer_id, addresses=node.addresses)


def random_file(folder: Path, num_bytes: int) -> Path:
    path = folder / f"source-{time.monotonic_ns()}"
    with path.open("wb") as file:
        for start in range(0, num_bytes, MIB):
            file.write(os.urandom(min(MIB, num_bytes - start)))
    return path


async def raw_host(folder: Path) -> Host:
    key_file = folder / "key"
    folder.mkdir(parents=True, exist_ok=True)
    write_libp2p_identity(load_or_create_key(key_file), folder / "identity")
    parts = load_hivemind()
    files = DaemonFiles(parts.p2pd, folder / "identity", folder / "p2pd.sock")
    return await Host.start(parts, files, config(folder))


async def serve_raw(folder: Path) -> None:
    """The other process of the raw stream: sends as many bytes as it is told, until its stdin ends."""
    host = await raw_host(folder)
    piece = os.urandom(MIB)

    async def serve(stream: Stream) -> None:
        size = int.from_bytes(await stream.receive_raw(8, WAIT_S), "big")
        for _ in range(size // MIB):
            await stream.send_raw(piece, WAIT_S)
        await stream.await_acknowledgement()

    await host.serve(RAW, serve)
    print(host.peer, *await host.addresses(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await host.stop()


def kept(file: BinaryIO, piece: bytes) -> None:
    """What is done with a chunk at the least."""
    hashlib.sha256(piece).digest()
    file.write(piece)


@asynccontextmanager
async def raw_stream(folder: Path) -> AsyncIterator[Callable[[int, bool], Awaitable[float]]]:
    """Measures seconds for so many bytes over a bare stream from another process, dropped or kept."""
    command = [sys.executable, __file__, "raw-server", "--folder", str(folder / "server")]
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert server.stdout is not None
    peer, *addresses = (await server.stdout.readline()).decode().split()
    host = await raw_host(folder / "client")

    async def measured(num_bytes: int, keep: bool) -> float:
        stream = await host.open_stream(PeerId(peer), addresses, RAW)
        with (folder / "kept").open("wb") as file:
            began = time.perf_counter()
            await stream.send_raw(num_bytes.to_bytes(8, "big"), WAIT_S)
            keeping = asyncio.ensure_future(asyncio.sleep(0))
            for _ in range(num_bytes // MIB):
                piece = await stream.receive_raw(MIB, WAIT_S)
                await keeping
                if keep:
                    keeping = asyncio.ensure_future(asyncio.to_thread(kept, file, piece))
            await keeping
            os.fsync(file.fileno())
            took_s = time.perf_counter() - began
        async with stream:
            await stream.acknowledge()
        return took_s

    try:
        yield measured
    finally:
        await host.stop()
        await server.communicate(b"")


@dataclass(frozen=True)
class Cost:
    """Of one transfer."""

    took_s: float
    processor_s: float


async def single(folder: Path, num_bytes: int, rounds: int) -> None:
    async with nodes(folder, 2) as (source, sink), raw_stream(folder / "raw") as raw:
        costs: dict[str, list[Cost]] = {"blob": [], "raw stream": [], "raw, kept": []}
        for _ in range(rounds):
            costs["raw stream"].append(await cost_of(lambda: raw(num_bytes, False)))
            costs["raw, kept"].append(await cost_of(lambda: raw(num_bytes, True)))
            costs["blob"].append(await download(folder, num_bytes, source, sink))
    rates = {name: rate(num_bytes, found) for name, found in costs.items()}
    spent = {name: median(c.processor_s for c in found) for name, found in costs.items()}
    for name in costs:
        per_gb = spent[name] / (num_bytes / 1e9)
        print(
            f"{name:12} {rates[name]:7.0f} MB/s, {per_gb:5.2f} processor seconds a GB (median of {rounds})"
        )
    for name in ("raw stream", "raw, kept"):
        print(
            f"blob / {name} {rates['blob'] / rates[name]:.2f}; "
            f"{spent[name] / spent['blob']:.2f} where processors are the bound"
        )


def rate(num_bytes: int, costs: Sequence[Cost]) -> float:
    """MB a second."""
    return num_bytes / 1e6 / median(cost.took_s for cost in costs)


async def download(
    folder: Path, num_bytes: int, source: NetworkClient, sink: NetworkClient
) -> Cost:
    path = random_file(folder, num_bytes)
    blob = await source.add_blob(path)
    path.unlink()  # the disk must not be busy with it meanwhile
    cost = await cost_of(lambda: sink.fetch_blob(blob, [provider(source)]))
    await asyncio.gather(source.drop_blob(blob), sink.drop_blob(blob))
    return cost


async def cost_of(act: Callable[[], Awaitable[object]]) -> Cost:
    """Processor time of this process and of all that it started: both ends, and both daemons."""
    began, before_s = time.perf_counter(), processor_s()
    await act()
    return Cost(time.perf_counter() - began, processor_s() - before_s)


def processor_s() -> float:
    own = psutil.Process()
    times = (process.cpu_times() for process in [own, *own.children(recursive=True)])
    return sum(spent.user + spent.system for spent in times)


async def ways(folder: Path, num_bytes: int, rounds: int) -> None:
    async with AsyncExitStack() as stack:
        pairs = {
            name: await stack.enter_async_context(nodes(folder / name, 2, listen=listen))
            for name, listen in WAYS.items()
        }
        costs: dict[str, list[Cost]] = {name: [] for name in pairs}
        for _ in range(rounds):
            for name, (source, sink) in pairs.items():
                costs[name].append(await download(folder, num_bytes, source, sink))
    for name, found in costs.items():
        per_gb = median(cost.processor_s for cost in found) / (num_bytes / 1e9)
        print(
            f"{name:10} {rate(num_bytes, found):7.0f} MB/s, {per_gb:5.2f} processor seconds a GB (median of {rounds})"
        )


async def swarm_s(folder: Path, num_bytes: int, count: int, link: int) -> float:
    async with nodes(folder, count + 1, link) as started:
        source, *others = started
        blob = await source.add_blob(random_file(folder, num_bytes))
        everyone = [provider(node) for node in started]
        began = time.perf_counter()
        await asyncio.gather(*(node.fetch_blob(blob, everyone) for node in others))
        return time.perf_counter() - began


async def http_s(num_bytes: int, count: int, link: int) -> float:
    """One server whose uplink is capped; every client takes everything from it."""
    bucket = TokenBucket(float(link))
    piece = bytes(64 * 1024)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {num_bytes}\r\n\r\n".encode())
        for _ in range(num_bytes // len(piece)):
            await asyncio.sleep(bucket.wait_s(len(piece), time.monotonic()))
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def take(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
        while await reader.read(MIB):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        began = time.perf_counter()
        await asyncio.gather(*(take(port) for _ in range(count)))
        return time.perf_counter() - began


def torrent_s(folder: Path, num_bytes: int, count: int, link: int) -> float:
    """libtorrent with the same caps; every peer is told of every other at the start, as the nodes are."""
    import libtorrent as lt

    source = random_file(folder, num_bytes)
    info = lt.torrent_info(torrent_of(lt, source))
    sessions = [lt.session(torrent_settings(link)) for _ in range(count + 1)]
    for session in sessions:  # loopback peers are exempt from the caps unless told otherwise
        capped = lt.ip_filter()
        capped.add_rule("0.0.0.0", "255.255.255.255", 1 << lt.session.global_peer_class_id)
        session.set_peer_class_filter(capped)
    handles = []
    for number, session in enumerate(sessions):
        place = source.parent if number == 0 else folder / f"torrent-{number}"
        place.mkdir(exist_ok=True)
        wanted = lt.add_torrent_params()
        wanted.ti, wanted.save_path = info, str(place)
        handles.append(session.add_torrent(wanted))
    while not handles[0].status().is_seeding:
        time.sleep(0.05)
    began = time.perf_counter()
    for handle in handles:
        for session in sessions:
            handle.connect_peer(("127.0.0.1", session.listen_port()))
    while not all(handle.status().is_seeding for handle in handles):
        time.sleep(0.05)
    return time.perf_counter() - began


def torrent_of(lt: Any, source: Path) -> dict[bytes, object]:
    creator = lt.create_torrent(lt.list_files(str(source)))
    lt.set_piece_hashes(creator, str(source.parent))
    made: dict[bytes, object] = creator.generate()
    return made


def torrent_settings(link: int) -> dict[str, object]:
    return {
        "listen_interfaces": "127.0.0.1:0",
        "upload_rate_limit": link,
        "download_rate_limit": link,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "allow_multiple_connections_per_ip": True,
    }


async def many(folder: Path, num_bytes: int, count: int, link: int) -> None:
    ideal_s = num_bytes / link
    print(
        f"1 -> {count} nodes, {num_bytes / 1e6:.0f} MB, links of {link / 1e6:.1f} MB/s; ideal {ideal_s:.1f} s"
    )
    tell("kinoswarm", await swarm_s(folder / "swarm", num_bytes, count, link), ideal_s)
    try:
        took_s = await asyncio.to_thread(torrent_s, folder, num_bytes, count, link)
        tell("libtorrent", took_s, ideal_s)
    except ImportError:
        print("libtorrent is not installed: pip install 'kinoswarm[bench]'")
    tell("HTTP server", await http_s(num_bytes, count, link), ideal_s)


def tell(name: str, took_s: float, ideal_s: float) -> None:
    print(
        f"{name:12} last node done after {took_s:6.1f} s, {took_s / ideal_s:.2f} x size/link",
        flush=True,
    )


async def memory(folder: Path, num_bytes: int) -> None:
    async with nodes(folder, 2) as (source, sink):
        path = random_file(folder, num_bytes)
        before = {"source": peak_mb(source), "sink": peak_mb(sink)}
        blob = await source.add_blob(path)
        await sink.fetch_blob(blob, [provider(source)])
        for name, node in (("source", source), ("sink", sink)):
            grown = peak_mb(node) - before[name]
            print(f"{name}: peak memory of the network process grew by {grown:.0f} MB")


def peak_mb(node: NetworkClient) -> float:
    status = Path(f"/proc/{node.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1e3


def where() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"{machine}, Python {platform.python_version()}, commit {commit or 'unknown'}"


async def run(arguments: argparse.Namespace) -> None:
    if arguments.what == "raw-server":
        return await serve_raw(arguments.folder)
    num_bytes = arguments.megabytes * MIB
    print(where())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "swarm").mkdir()
        if arguments.what == "single":
            await single(folder, num_bytes, arguments.rounds)
        elif arguments.what == "ways":
            await ways(folder, num_bytes, arguments.rounds)
        elif arguments.what == "many":
            await many(folder, num_bytes, arguments.nodes, arguments.link_megabytes * 1_000_000)
        else:
            await memory(folder, num_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["single", "many", "memory", "ways", "raw-server"])
    parser.add_argument("--megabytes", type=int, default=64, help="size of the blob, in MiB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--link-megabytes", type=int, default=4, help="every link, in MB a second")
    parser.add_argument("--folder", type=Path, help="of the raw server, which single starts itself")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
