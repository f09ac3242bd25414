"""Blobs between real peers: verified on arrival, fetched elsewhere when a provider fails, resumed after a kill -9."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from network.peers import (
    NOBODY,
    SWARM,
    Nodes,
    Stranger,
    config,
    echo,
    provider,
    wait_until_gone,
)

from kinoswarm_network.blob_server import have_bytes
from kinoswarm_network.client import NetworkClient, Provider
from kinoswarm_network.stream_frames import (
    AskChunk,
    AskHave,
    AskManifest,
    Goodbye,
    Sending,
    blob_protocol,
    read_ask,
    refusal,
)
from kinoswarm_network.streams import Stream
from kinoswarm_protocol.codec import encode
from kinoswarm_protocol.errors import (
    Code,
    HashMismatch,
    LimitExceeded,
    LocalError,
    MalformedBytes,
    Refused,
    Unreachable,
)
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MAX_BLOB_FRAME, MIB
from kinoswarm_protocol.manifest import encode_manifest, manifest_of

Serve = Callable[[Stream], Awaitable[None]]


def pieces_of(data: bytes) -> list[bytes]:
    return [data[start : start + MIB] for start in range(0, len(data), MIB)]


def fresh(path: Path, num_bytes: int) -> bytes:
    data = os.urandom(num_bytes)
    path.write_bytes(data)
    return data


async def send(stream: Stream, data: bytes, announced: int | None = None) -> None:
    size = len(data) if announced is None else announced
    await stream.send(encode(Sending(size_bytes=size)), 5.0)
    await stream.send_raw(data, 5.0)


def honest_for(data: bytes, chunks: int, then: Serve) -> Serve:
    """A provider that serves the manifest and the first few chunks, and then behaves like `then`."""

    async def serve(stream: Stream) -> None:
        left = chunks
        while True:
            ask = read_ask(await stream.receive(MAX_BLOB_FRAME, 30.0))
            match ask:
                case AskManifest():
                    await send(stream, encode_manifest(manifest_of(pieces_of(data)))[1])
                case AskHave():
                    await send(
                        stream, have_bytes(range(len(pieces_of(data))), len(pieces_of(data)))
                    )
                case AskChunk() if left:
                    left -= 1
                    await send(stream, pieces_of(data)[ask.index])
                case AskChunk():
                    await then(stream)
                    return
                case Goodbye():
                    return

    return serve


async def sends_a_wrong_chunk(stream: Stream) -> None:
    await send(stream, bytes(MIB))
    await stream.receive(MAX_BLOB_FRAME, 30.0)


async def sends_a_short_chunk(stream: Stream) -> None:
    await send(stream, b"short")
    await stream.receive(MAX_BLOB_FRAME, 30.0)


async def announces_too_much(stream: Stream) -> None:
    await send(stream, b"", announced=2**40)
    await stream.receive(MAX_BLOB_FRAME, 30.0)


async def ends_early(stream: Stream) -> None:
    await send(stream, bytes(1000), announced=MIB)


async def stalls(stream: Stream) -> None:
    await send(stream, bytes(1000), announced=MIB)
    while True:  # takes asks, answers none, until the other side gives up
        await stream.receive(MAX_BLOB_FRAME, 60.0)


async def talks_nonsense(stream: Stream) -> None:
    await stream.send(b"\xc1", 5.0)


async def claims_what_it_has_not(stream: Stream) -> None:
    await stream.send(refusal(Refused(Code.BLOB_UNAVAILABLE, "not here")), 5.0)


FAULTS = [
    (claims_what_it_has_not, Refused),
    (sends_a_wrong_chunk, HashMismatch),
    (sends_a_short_chunk, HashMismatch),
    (announces_too_much, MalformedBytes),
    (ends_early, Unreachable),
    (stalls, Unreachable),
    (talks_nonsense, MalformedBytes),
]


def test_a_blob_arrives_whole_and_is_served_on(
    runner: asyncio.Runner, nodes: Nodes, source: Path
) -> None:
    data = fresh(source, 3 * MIB + 17)
    blob = runner.run(nodes.first.add_blob(source))
    progress: list[tuple[int, int]] = []
    path = runner.run(
        nodes.second.fetch_blob(
            blob, [provider(nodes.first)], lambda done, total: progress.append((done, total))
        )
    )
    assert path.read_bytes() == data
    assert progress[-1] == (len(data), len(data))
    assert runner.run(nodes.second.blob_path(blob)) == path
    onward = runner.run(nodes.third.fetch_blob(blob, [provider(nodes.second)]))
    assert onward.read_bytes() == data
    assert runner.run(nodes.second.traffic()).blobs_served >= 1


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1])
def test_blobs_of_every_shape_arrive(
    runner: asyncio.Runner, nodes: Nodes, source: Path, size: int
) -> None:
    data = fresh(source, size)
    blob = runner.run(nodes.first.add_blob(source))
    assert runner.run(nodes.third.fetch_blob(blob, [provider(nodes.first)])).read_bytes() == data


def test_one_blob_asked_for_twice_is_fetched_once(
    runner: asyncio.Runner, nodes: Nodes, source: Path
) -> None:
    fresh(source, 4 * MIB)
    blob = runner.run(nodes.first.add_blob(source))
    before = runner.run(nodes.third.traffic()).bytes_down

    async def both() -> list[Path]:
        asked = [nodes.third.fetch_blob(blob, [provider(nodes.first)]) for _ in range(2)]
        return await asyncio.gather(*asked)

    one, other = runner.run(both())
    assert one == other
    assert runner.run(nodes.third.traffic()).bytes_down - before == 4 * MIB


def test_a_dropped_blob_is_gone_and_refused_to_others(
    runner: asyncio.Runner, nodes: Nodes, source: Path
) -> None:
    fresh(source, 100)
    blob = runner.run(nodes.first.add_blob(source))
    runner.run(nodes.first.pin(blob))
    runner.run(nodes.first.unpin(blob))
    runner.run(nodes.first.drop_blob(blob))
    assert runner.run(nodes.first.blob_path(blob)) is None
    with pytest.raises(Refused, match="is not here") as caught:
        runner.run(nodes.second.fetch_blob(blob, [provider(nodes.first)]))
    assert caught.value.code == Code.BLOB_UNAVAILABLE


def test_without_providers_the_reason_is_said(runner: asyncio.Runner, nodes: Nodes) -> None:
    with pytest.raises(Unreachable, match="no provider is known"):
        runner.run(nodes.second.fetch_blob(BlobId("12" * 32), []))


def test_a_blob_beyond_the_bound_is_refused_before_a_byte_of_it_is_kept(
    runner: asyncio.Runner, nodes: Nodes, source: Path
) -> None:
    fresh(source, 3 * MIB)
    blob = runner.run(nodes.first.add_blob(source))
    before = runner.run(nodes.second.traffic()).bytes_down
    with pytest.raises(LimitExceeded, match="at most"):
        runner.run(nodes.second.fetch_blob(blob, [provider(nodes.first)], max_bytes=3 * MIB - 1))
    assert runner.run(nodes.second.traffic()).bytes_down == before
    fetched = nodes.second.fetch_blob(blob, [provider(nodes.first)], max_bytes=3 * MIB)
    assert runner.run(fetched).stat().st_size == 3 * MIB


def test_a_file_that_is_not_there_is_a_local_error(
    runner: asyncio.Runner, nodes: Nodes, tmp_path: Path
) -> None:
    with pytest.raises(LocalError, match=r"cannot read .*nothing"):
        runner.run(nodes.first.add_blob(tmp_path / "nothing"))


@pytest.mark.parametrize(("fault", "error"), FAULTS)
def test_a_faulty_provider_alone_is_told_by_its_fault(
    runner: asyncio.Runner,
    nodes: Nodes,
    stranger: Stranger,
    fault: Serve,
    error: type[Exception],
) -> None:
    data = os.urandom(8 * MIB)
    blob, _ = encode_manifest(manifest_of(pieces_of(data)))
    runner.run(stranger.serve(blob_protocol(SWARM), honest_for(data, 1, fault)))
    with pytest.raises(error):
        runner.run(nodes.second.fetch_blob(blob, [provider(stranger)]))
    assert runner.run(nodes.second.blob_path(blob)) is None


@pytest.mark.parametrize(("fault", "error"), FAULTS)
def test_a_faulty_provider_costs_its_chunks_and_the_next_one_serves(
    runner: asyncio.Runner,
    nodes: Nodes,
    stranger: Stranger,
    source: Path,
    fault: Serve,
    error: type[Exception],
) -> None:
    data = fresh(source, 12 * MIB)
    blob = runner.run(nodes.first.add_blob(source))
    runner.run(stranger.serve(blob_protocol(SWARM), honest_for(data, 1, fault)))
    nobody = Provider(peer=NOBODY.rpartition("/")[2], addresses=[NOBODY])
    providers = [provider(stranger), nobody, provider(nodes.first)]
    before = runner.run(nodes.second.traffic()).bytes_down
    path = runner.run(nodes.second.fetch_blob(blob, providers))
    assert path.read_bytes() == data
    assert runner.run(nodes.second.traffic()).bytes_down - before <= len(data) + 4 * MIB


def test_chunks_of_a_download_that_still_runs_are_served(
    runner: asyncio.Runner, nodes: Nodes, stranger: Stranger
) -> None:
    data = os.urandom(8 * MIB)
    blob, _ = encode_manifest(manifest_of(pieces_of(data)))
    runner.run(stranger.serve(blob_protocol(SWARM), honest_for(data, 6, stalls)))
    progress: list[int] = []

    async def fetch_from_one_that_still_fetches() -> None:
        arrived = asyncio.Event()

        def watch(done: int, _: int) -> None:
            if done >= 6 * MIB:
                arrived.set()

        running = asyncio.create_task(nodes.first.fetch_blob(blob, [provider(stranger)], watch))
        await asyncio.wait_for(arrived.wait(), 20.0)
        with pytest.raises(Unreachable, match="lack the 2 chunks still wanted"):
            await nodes.third.fetch_blob(
                blob, [provider(nodes.first)], lambda done, _: progress.append(done)
            )
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    runner.run(fetch_from_one_that_still_fetches())
    assert progress[-1] == 6 * MIB


def test_wrong_chunks_are_counted(runner: asyncio.Runner, nodes: Nodes, stranger: Stranger) -> None:
    before = runner.run(nodes.third.traffic()).chunks_refused
    data = os.urandom(2 * MIB)
    blob, _ = encode_manifest(manifest_of(pieces_of(data)))
    runner.run(stranger.serve(blob_protocol(SWARM), honest_for(data, 0, sends_a_wrong_chunk)))
    with pytest.raises(HashMismatch, match=f"{stranger.peer_id} sent a wrong chunk"):
        runner.run(nodes.third.fetch_blob(blob, [provider(stranger)]))
    assert runner.run(nodes.third.traffic()).chunks_refused == before + 1


def test_a_cancelled_download_keeps_what_arrived(
    runner: asyncio.Runner, nodes: Nodes, stranger: Stranger, source: Path
) -> None:
    data = fresh(source, 6 * MIB)
    runner.run(stranger.serve(blob_protocol(SWARM), honest_for(data, 3, stalls)))
    blob = runner.run(nodes.first.add_blob(source))
    before = runner.run(nodes.third.traffic()).bytes_down

    async def cancel_at_three_chunks() -> None:
        arrived = asyncio.Event()

        def watch(done: int, _: int) -> None:
            if done >= 3 * MIB:
                arrived.set()

        fetching = asyncio.create_task(nodes.third.fetch_blob(blob, [provider(stranger)], watch))
        waiting = asyncio.create_task(arrived.wait())
        await asyncio.wait({fetching, waiting}, return_when=asyncio.FIRST_COMPLETED)
        fetching.cancel()
        waiting.cancel()
        await asyncio.gather(fetching, waiting, return_exceptions=True)

    runner.run(cancel_at_three_chunks())
    path = runner.run(nodes.third.fetch_blob(blob, [provider(nodes.first)]))
    assert path.read_bytes() == data
    assert runner.run(nodes.third.traffic()).bytes_down - before == len(data)


def test_a_download_resumes_after_a_kill_of_the_network_process(
    runner: asyncio.Runner, nodes: Nodes, stranger: Stranger, tmp_path: Path, source: Path
) -> None:
    data = fresh(source, 8 * MIB)
    blob = runner.run(nodes.first.add_blob(source))
    runner.run(stranger.serve(blob_protocol(SWARM), honest_for(data, 5, stalls)))
    settings = config(tmp_path / "home", chunk_timeout_s=60.0)

    async def fetch_and_kill() -> None:
        client = await NetworkClient.start(settings, echo)
        assert client.pid is not None
        arrived = asyncio.Event()

        def watch(done: int, _: int) -> None:
            if done >= 3 * MIB:
                arrived.set()

        fetching = asyncio.create_task(client.fetch_blob(blob, [provider(stranger)], watch))
        await asyncio.wait_for(arrived.wait(), 20.0)
        os.kill(client.pid, 9)
        with pytest.raises(LocalError, match="the network process has ended"):
            await fetching
        await client.wait_ended()
        await client.stop()

    async def go_on() -> tuple[Path, int]:
        client = await NetworkClient.start(settings, echo)
        path = await client.fetch_blob(blob, [provider(nodes.first)])
        down = (await client.traffic()).bytes_down
        await client.stop()
        return path, down

    runner.run(fetch_and_kill())
    path, down = runner.run(go_on())
    assert path.read_bytes() == data
    assert down <= len(data) - 3 * MIB


def test_no_process_of_these_tests_is_left_behind(tmp_path: Path, runner: asyncio.Runner) -> None:
    async def start_and_stop() -> list[int]:
        client = await NetworkClient.start(config(tmp_path / "home"), echo)
        pids = [client.pid or 0, int((tmp_path / "home" / "p2pd.pid").read_text())]
        await client.stop()
        return pids

    assert wait_until_gone(runner.run(start_and_stop()), 5.0)
