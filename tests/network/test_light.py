"""The light client (py-libp2p) against real p2pd peers: two implementations of libp2p, one protocol."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from network.peers import FOUNDER, NOBODY, OTHER_SWARM, SWARM, Nodes, Stranger, config, provider

from kinoswarm_network.host import StreamHandler
from kinoswarm_network.light_client import LightClient
from kinoswarm_network.stream_frames import Goodbye, Sending, blob_protocol, read_ask
from kinoswarm_network.streams import Stream
from kinoswarm_protocol.codec import encode
from kinoswarm_protocol.errors import HashMismatch, LocalError, MalformedBytes, Refused, Unreachable
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MAX_BLOB_FRAME, MIB
from kinoswarm_protocol.manifest import encode_manifest, manifest_of
from kinoswarm_protocol.messages import ProviderHint

NOBODY_ID = FOUNDER.peer_id
Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def light(
    runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LightClient]:
    folder = tmp_path_factory.mktemp("light")
    client = runner.run(LightClient.start(config(folder, chunk_timeout_s=2.0)))
    yield client
    runner.run(client.stop())


def published(runner: asyncio.Runner, nodes: Nodes, source: Path, size: int) -> BlobId:
    source.write_bytes(os.urandom(size))
    return runner.run(nodes.first.add_blob(source))


def test_a_download_that_was_killed_goes_on_where_it_stopped(
    runner: asyncio.Runner, nodes: Nodes, source: Path, tmp_path: Path
) -> None:
    """The process is killed while chunks arrive."""
    blob = published(runner, nodes, source, 24 * MIB)

    async def kill_midway() -> None:
        first = await LightClient.start(config(tmp_path / "light"))
        arrived = asyncio.Event()
        fetching = asyncio.create_task(
            first.fetch_blob(blob, [provider(nodes.first)], lambda done, total: arrived.set())
        )
        await arrived.wait()
        os.kill(first.pid, 9)
        with pytest.raises(Unreachable, match="goes on where it stopped"):
            await fetching
        await first.stop()

    async def go_on() -> tuple[Path, list[int]]:
        told: list[int] = []
        second = await LightClient.start(config(tmp_path / "light"))
        try:
            path = await second.fetch_blob(
                blob, [provider(nodes.first)], lambda done, total: told.append(done)
            )
        finally:
            await second.stop()
        return path, told

    runner.run(kill_midway())
    path, told = runner.run(go_on())
    assert path.read_bytes() == source.read_bytes()
    assert len(told) < 24


def lying(data: bytes, manifest: bytes) -> StreamHandler:
    """Serves the right manifest and then other bytes."""

    async def serve(stream: Stream) -> None:
        while not isinstance(ask := read_ask(await stream.receive(MAX_BLOB_FRAME, 5)), Goodbye):
            answer = manifest if "Manifest" in type(ask).__name__ else data
            await stream.send(encode(Sending(size_bytes=len(answer))), 5)
            await stream.send_raw(answer, 5)

    return serve


def test_a_peer_that_lies_costs_a_chunk_and_the_next_one_is_asked(
    runner: asyncio.Runner, nodes: Nodes, stranger: Stranger, source: Path, light: LightClient
) -> None:
    blob = published(runner, nodes, source, MIB)
    _, manifest = encode_manifest(manifest_of([source.read_bytes()]))
    runner.run(stranger.serve(blob_protocol(SWARM), lying(bytes(MIB), manifest)))
    with pytest.raises(HashMismatch, match="sent a wrong chunk"):
        runner.run(light.fetch_blob(blob, [provider(stranger)]))
    path = runner.run(light.fetch_blob(blob, [provider(stranger), provider(nodes.first)]))
    assert path.read_bytes() == source.read_bytes()


async def hang_up(stream: Stream) -> None:
    await stream.receive(MAX_BLOB_FRAME, 5)


async def announce_too_much(stream: Stream) -> None:
    await stream.receive(MAX_BLOB_FRAME, 5)
    await stream.send(encode(Sending(size_bytes=2**40)), 5)


@pytest.mark.parametrize("fault", [hang_up, announce_too_much])
def test_a_peer_that_breaks_the_rules_never_costs_the_process(
    runner: asyncio.Runner,
    nodes: Nodes,
    stranger: Stranger,
    source: Path,
    light: LightClient,
    fault: StreamHandler,
) -> None:
    blob = published(runner, nodes, source, 1000)
    runner.run(stranger.serve(blob_protocol(SWARM), fault))
    path = runner.run(light.fetch_blob(blob, [provider(stranger), provider(nodes.first)]))
    assert path.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (NOBODY, "nobody listens there"),
        ("/ip4/127.0.0.1/udp/4001/quic-v1", "knows only TCP"),
        ("/ip4/127.0.0.1.7/tcp/1", "is not a multiaddress"),
    ],
)
def test_a_dead_address_is_told_in_words(
    runner: asyncio.Runner, light: LightClient, address: str, words: str
) -> None:
    with pytest.raises((Unreachable, MalformedBytes), match=words):
        runner.run(light.control(NOBODY_ID, [address], b"x", 5.0))


async def answer_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(range(256)) * 8)
    await writer.drain()
    writer.close()


async def hang_up_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def half_a_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Agrees to Noise, then sends what is none."""
    writer.write(b"\x13/multistream/1.0.0\n\x07/noise\n" + b"\x00\x20" + bytes(32))
    await writer.drain()
    await reader.read(1_000)
    writer.close()


@pytest.mark.parametrize("stranger", [answer_nonsense, hang_up_at_once, half_a_handshake])
def test_a_program_that_speaks_no_libp2p_costs_one_error_and_not_the_process(
    runner: asyncio.Runner, nodes: Nodes, light: LightClient, stranger: Answering
) -> None:
    async def ask_it_then_a_real_one() -> bytes:
        async with await asyncio.start_server(stranger, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(Unreachable):
                await light.control(NOBODY_ID, [f"/ip4/127.0.0.1/tcp/{port}"], b"x", 10.0)
        return await light.control(nodes.first.peer_id, nodes.first.addresses, b"x", 10.0)

    assert runner.run(ask_it_then_a_real_one()).endswith(b"asked x")


def test_another_peer_at_the_address_is_not_spoken_to(
    runner: asyncio.Runner, nodes: Nodes, light: LightClient
) -> None:
    address = nodes.first.addresses[0].rpartition("/p2p/")[0]
    with pytest.raises(Unreachable, match="somebody else answers"):
        runner.run(light.control(nodes.second.peer_id, [address], b"x", 5.0))


def test_a_swarm_that_the_peer_does_not_know_is_told(
    runner: asyncio.Runner, nodes: Nodes, tmp_path: Path
) -> None:
    async def ask() -> None:
        other = await LightClient.start(config(tmp_path / "light", swarm=OTHER_SWARM))
        try:
            await other.control(nodes.first.peer_id, nodes.first.addresses, b"x", 5.0)
        finally:
            await other.stop()

    with pytest.raises(Unreachable, match="takes no part in this swarm"):
        runner.run(ask())


def test_a_folder_that_cannot_be_used_is_ours_and_not_the_peers(
    runner: asyncio.Runner, nodes: Nodes, source: Path, tmp_path: Path
) -> None:
    blob = published(runner, nodes, source, 1000)

    async def fetch_into_a_broken_store() -> None:
        client = await LightClient.start(config(tmp_path / "light"))
        partial = tmp_path / "light" / "blobs" / "partial"
        partial.rmdir()
        partial.write_bytes(b"a file where the folder was")
        try:
            await client.fetch_blob(blob, [provider(nodes.first)])
        finally:
            await client.stop()

    with pytest.raises(LocalError):
        runner.run(fetch_into_a_broken_store())


def test_the_process_ends_with_its_service(runner: asyncio.Runner, tmp_path: Path) -> None:
    async def start_and_stop() -> int | None:
        client = await LightClient.start(config(tmp_path / "light"))
        await client.stop()
        return client._process.returncode

    assert runner.run(start_and_stop()) == 0


def test_without_providers_it_says_so(runner: asyncio.Runner, light: LightClient) -> None:
    with pytest.raises((Unreachable, Refused), match="no provider is known"):
        runner.run(light.fetch_blob(BlobId("77" * 32), list[ProviderHint]()))
