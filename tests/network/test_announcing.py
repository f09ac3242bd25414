"""Who serves a blob is in the DHT, also while it still comes: later ones get it from earlier ones, without any hint."""

import asyncio
import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from network.peers import SWARM, Stranger, config, echo, provider
from network.test_exchange import honest_for, pieces_of, stalls

from kinoswarm_network.announcing import AGAIN_MS, MAX_ANNOUNCED, Turns
from kinoswarm_network.client import NetworkClient
from kinoswarm_network.stream_frames import blob_protocol
from kinoswarm_protocol.errors import Unreachable
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MIB
from kinoswarm_protocol.manifest import encode_manifest, manifest_of

RECORD_LIVES_MS = 600_000


def blob_id(number: int) -> BlobId:
    return BlobId(f"{number:064x}")


def test_a_blob_is_told_at_once_and_again_before_its_record_runs_out() -> None:
    turns = Turns()
    turns.note(blob_id(1), 1_000)
    assert turns.take(1_000) == [blob_id(1)]
    turns.note(blob_id(1), 2_000)
    assert turns.take(2_000) == []
    assert turns.take(1_000 + AGAIN_MS) == [blob_id(1)]
    assert 2 * AGAIN_MS < RECORD_LIVES_MS


def test_what_could_not_be_told_is_tried_again_soon() -> None:
    turns = Turns()
    turns.note(blob_id(1), 0)
    assert turns.take(0)
    turns.failed(blob_id(1), 0)
    assert turns.take(20_000) == [blob_id(1)]


def test_what_is_gone_is_told_no_more() -> None:
    turns = Turns()
    turns.note(blob_id(1), 0)
    turns.note(blob_id(2), 0)
    turns.keep_only([blob_id(2)])
    assert turns.take(0) == [blob_id(2)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 3 * MAX_ANNOUNCED), max_size=50), st.integers(1, 2 * MAX_ANNOUNCED))
def test_however_many_blobs_the_number_told_is_bounded_and_nobody_starves(
    notes: list[int], many: int
) -> None:
    turns = Turns()
    for number in range(many):
        turns.note(blob_id(number), 0)
    for number in notes:
        turns.note(blob_id(number), 1)
    assert len(turns.due_ms) <= MAX_ANNOUNCED
    told: set[BlobId] = set()
    while due := turns.take(1):
        told.update(due)
    assert told == set(turns.due_ms)


def test_a_second_node_gets_from_the_first_what_that_is_still_fetching(
    tmp_path: Path, runner: asyncio.Runner, stranger: Stranger
) -> None:
    """Nobody tells the second node of the first one: it reads so in the DHT, and holds as much a moment later."""
    data = os.urandom(6 * MIB)
    blob, _ = encode_manifest(manifest_of(pieces_of(data)))
    runner.run(stranger.serve(blob_protocol(SWARM), honest_for(data, 5, stalls)))

    async def fetch_both() -> int:
        first = await NetworkClient.start(
            config(tmp_path / "a", announce_blobs=True, chunk_timeout_s=60.0), echo
        )
        second = await NetworkClient.start(
            config(tmp_path / "b", bootstrap=first.addresses, chunk_timeout_s=60.0), echo
        )
        arrived, most = asyncio.Event(), 0

        def watch(done: int, _: int) -> None:
            nonlocal most
            most = done
            if done >= 5 * MIB:
                arrived.set()

        begun = asyncio.create_task(first.fetch_blob(blob, [provider(stranger)], _quietly))
        following = asyncio.create_task(_until_found(second, blob, watch))
        try:
            await asyncio.wait_for(arrived.wait(), 60.0)
        finally:
            for task in (begun, following):
                task.cancel()
            await asyncio.gather(begun, following, return_exceptions=True)
            await asyncio.gather(first.stop(), second.stop())
        return most

    assert runner.run(fetch_both()) == 5 * MIB


async def _until_found(client: NetworkClient, blob: BlobId, watch: object) -> None:
    """A node that is refused for want of providers asks again, as the daemon does."""
    while True:
        try:
            await client.fetch_blob(blob, [], watch)  # type: ignore[arg-type]
        except Unreachable as error:
            if "no provider is known" not in str(error):
                raise


def _quietly(done: int, total: int) -> None:
    pass
