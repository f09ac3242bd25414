"""The scrub: what rotted on the disk is hidden, and only its bad chunks are wanted again."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from network.peers import Nodes, config, echo, provider

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.client import NetworkClient
from kinoswarm_network.scrub import Scrub
from kinoswarm_network.traffic import Counters
from kinoswarm_protocol.errors import Unreachable
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MIB

FAST = 2**40


def stored(store: BlobStore, folder: Path, data: bytes) -> BlobId:
    source = folder / "source"
    source.write_bytes(data)
    return store.add_file(source)


def rot(path: Path, offset: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(1)
        file.seek(offset)
        file.write(bytes([old[0] ^ 1]))


def data_of(store: BlobStore, blob: BlobId) -> Path:
    return store.root / blob[:2] / blob


def scrub(store: BlobStore, repaired: list[BlobId], counters: Counters) -> list[BlobId]:
    async def repair(blob: BlobId) -> None:
        repaired.append(blob)
        raise Unreachable("nobody has it now")

    return asyncio.run(Scrub(store, counters, FAST, repair).one_round())


def test_a_rotten_blob_is_hidden_and_only_its_bad_chunk_is_wanted_again(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "store")
    good = stored(store, tmp_path, os.urandom(MIB))
    bad = stored(store, tmp_path, os.urandom(3 * MIB))
    rot(data_of(store, bad), MIB + 5)
    repaired: list[BlobId] = []
    counters = Counters()
    assert scrub(store, repaired, counters) == [bad]
    assert repaired == [bad]
    assert counters.blobs_damaged == 1
    assert store.path_of(bad) is None
    assert store.path_of(good) is not None
    raw = store.partial_manifest(bad)
    assert raw is not None
    partial = store.begin(bad, raw)
    assert partial.missing == [1]
    partial.close()


def test_a_blob_with_a_rotten_manifest_is_dropped(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "store")
    blob = stored(store, tmp_path, b"data")
    rot(data_of(store, blob).with_suffix(".manifest"), 0)
    assert scrub(store, [], Counters()) == [blob]
    assert not data_of(store, blob).exists()
    assert store.blobs() == []


def test_a_shortened_blob_is_found(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "store")
    blob = stored(store, tmp_path, os.urandom(100))
    data_of(store, blob).chmod(0o600)
    os.truncate(data_of(store, blob), 50)
    assert scrub(store, [], Counters()) == [blob]


def test_checking_is_no_use_of_a_blob(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "store")
    blob = stored(store, tmp_path, b"data")
    os.utime(data_of(store, blob).with_suffix(".manifest"), (1_000, 1_000))
    assert scrub(store, [], Counters()) == []
    assert [entry.used_at_s for entry in store.blobs()] == [1_000]


@pytest.mark.parametrize(("age_s", "stays"), [(10, True), (2 * 86_400, False)])
def test_an_old_manifest_without_data_is_removed_when_the_store_opens(
    tmp_path: Path, age_s: int, stays: bool
) -> None:
    store = BlobStore(tmp_path / "store")
    blob = stored(store, tmp_path, b"data")
    manifest = data_of(store, blob).with_suffix(".manifest")
    data_of(store, blob).unlink()
    written_s = time.time() - age_s
    os.utime(manifest, (written_s, written_s))
    BlobStore(tmp_path / "store")
    assert manifest.exists() == stays


def test_a_node_finds_a_rotten_blob_and_fetches_only_what_rotted(
    runner: asyncio.Runner, nodes: Nodes, tmp_path: Path, source: Path
) -> None:
    data = os.urandom(4 * MIB)
    source.write_bytes(data)
    blob = runner.run(nodes.first.add_blob(source))
    store = BlobStore(tmp_path / "home" / "blobs")
    assert stored(store, tmp_path, data) == blob
    rot(data_of(store, blob), 7)
    settings = config(tmp_path / "home", scrub_bytes_per_s=FAST)

    async def found_and_repaired() -> tuple[Path, int]:
        client = await NetworkClient.start(settings, echo)
        try:
            async with asyncio.timeout(20.0):
                while await client.blob_path(blob) is not None:
                    assert (await client.traffic()).chunks_refused == 0
                assert (await client.traffic()).blobs_damaged == 1
            path = await client.fetch_blob(blob, [provider(nodes.first)])
            return path, (await client.traffic()).bytes_down
        finally:
            await client.stop()

    path, down = runner.run(found_and_repaired())
    assert path.read_bytes() == data
    assert down == MIB
