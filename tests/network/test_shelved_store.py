"""Blobs on S3-compatible storage: a real server, which may be away, forged or damaged, behind the blob folder."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.s3_server import S3Server, s3_server
from network.peers import Nodes, config, echo

from kinoswarm_network.client import NetworkClient, Provider
from kinoswarm_network.object_shelf import ObjectShelf
from kinoswarm_network.partial_blob import PartialBlob
from kinoswarm_network.shelved_store import ShelvedBlobStore
from kinoswarm_protocol.errors import LocalError, Unreachable
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import CHUNK_BYTES, MIB
from kinoswarm_protocol.manifest import encode_manifest, manifest_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


class Machines:
    """Machines that share one prefix of the bucket; each has its own folder."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def store(self, name: str, quota_bytes: int = 0) -> ShelvedBlobStore:
        return ShelvedBlobStore(self.folder / name, quota_bytes, ObjectShelf(self.url))

    def file(self, size: int) -> Path:
        path = self.folder / f"source-{size}"
        path.write_bytes(os.urandom(size))
        return path


@pytest.fixture
def machines(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return Machines(tmp_path, f"s3://swarm/{tmp_path.name}")


def raw_objects(server: S3Server, machines: Machines):
    return server.objects(machines.url.rpartition("/")[2])


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 5])
def test_what_one_machine_keeps_another_has_verified(machines: Machines, size: int) -> None:
    source = machines.file(size)
    blob = machines.store("one").add_file(source)
    other = machines.store("other")
    assert other.has(blob)
    assert other.local_path_of(blob) is None
    path = other.path_of(blob)
    assert path is not None
    assert path.read_bytes() == source.read_bytes()
    assert other.local_path_of(blob) == path


def test_ranges_are_read_from_the_shelf_without_bringing_the_blob(machines: Machines) -> None:
    source = machines.file(2 * MIB + 100)
    data = source.read_bytes()
    blob = machines.store("one").add_file(source)
    other = machines.store("other")
    for start, size in [(0, 10), (MIB - 5, 10), (2 * MIB + 90, 50), (0, 3 * MIB), (5 * MIB, 1)]:
        assert other.read_range(blob, start, size) == data[start : start + size]
    assert other.local_path_of(blob) is None


def test_two_processes_that_want_one_blob_bring_it_in_turn(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one lets go in the moment after it was found to hold the download."""
    source = machines.file(MIB)
    blob = machines.store("one").add_file(source)
    mine, theirs = machines.store("shared"), machines.store("shared")
    raw = theirs.manifest_bytes(blob)
    assert raw is not None
    held = theirs.begin(blob, raw)
    begin = mine.begin

    def as_the_other_ends(blob: BlobId, raw: bytes) -> PartialBlob:
        try:
            return begin(blob, raw)
        finally:
            held.close()

    monkeypatch.setattr(mine, "begin", as_the_other_ends)
    path = mine.path_of(blob)
    assert path is not None
    assert path.read_bytes() == source.read_bytes()


def test_an_upload_that_broke_between_data_and_manifest_is_not_there(
    machines: Machines, server: S3Server
) -> None:
    """Killed after the data's last part: the manifest, which comes last, is missing."""
    blob = machines.store("one").add_file(machines.file(MIB))
    raw_objects(server, machines).delete(f"{blob[:2]}/{blob}.manifest")
    other = machines.store("other")
    assert not other.has(blob)
    assert other.path_of(blob) is None
    assert other.manifest_bytes(blob) is None


@pytest.mark.parametrize("damage", ["other bytes", "too short", "gone", "forged manifest", "huge"])
def test_a_damaged_object_is_never_taken_for_the_blob(
    machines: Machines, server: S3Server, damage: str
) -> None:
    blob = machines.store("one").add_file(machines.file(2 * MIB))
    name = f"{blob[:2]}/{blob}"
    objects = raw_objects(server, machines)
    match damage:
        case "other bytes":
            objects.put(name, os.urandom(2 * MIB))
        case "too short":
            objects.put(name, b"short")
        case "gone":
            objects.delete(name)
        case "forged manifest":
            objects.put(f"{name}.manifest", encode_manifest(manifest_of([b"another blob"]))[1])
        case "huge":
            objects.put(f"{name}.manifest", bytes(9 * MIB))
    other = machines.store("other")
    assert other.path_of(blob) is None
    with pytest.raises(LocalError):
        other.read_range(blob, 0, CHUNK_BYTES)
    assert other.local_path_of(blob) is None


def test_two_who_want_a_blob_at_once_both_get_it(machines: Machines) -> None:
    blob = machines.store("one").add_file(machines.file(4 * MIB))
    found: list[Path | None] = []
    stores = [machines.store("other"), machines.store("other")]  # one folder, as of two processes
    threads = [threading.Thread(target=lambda s=s: found.append(s.path_of(blob))) for s in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 2
    assert None not in found


def test_a_storage_that_is_away_costs_nothing_that_lies_here_and_catches_up_later(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = machines.store("one")
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        cut_off = machines.store("one")
        blob = cut_off.add_file(machines.file(MIB))
        assert cut_off.path_of(blob) is not None
        assert cut_off.path_of(BlobId("77" * 32)) is None
        assert cut_off.catch_up() == 0
    assert not machines.store("other").has(blob)
    assert store.catch_up() == 1
    assert store.catch_up() == 0
    assert machines.store("other").path_of(blob) is not None


def test_the_folder_is_a_cache_that_keeps_its_quota_and_loses_nothing(machines: Machines) -> None:
    store = machines.store("one", quota_bytes=3 * MIB)
    sources = [machines.file(MIB + number) for number in range(6)]
    blobs = [store.add_file(source) for source in sources]
    assert sum(entry.size_bytes for entry in store.blobs()) <= 4 * MIB
    assert store.local_path_of(blobs[0]) is None
    for blob, source in zip(blobs, sources, strict=True):
        path = store.path_of(blob)
        assert path is not None
        assert path.read_bytes() == source.read_bytes()


def test_what_is_not_on_the_shelf_yet_is_never_evicted(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    store = machines.store("one", quota_bytes=MIB)
    blobs = [store.add_file(machines.file(MIB + number)) for number in range(3)]
    assert all(store.local_path_of(blob) for blob in blobs)


def test_asking_for_what_nobody_has_does_not_ask_the_storage_every_time(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = machines.store("one")
    asked: list[str] = []
    monkeypatch.setattr(store.shelf, "names", lambda: asked.append("names") or set())
    for number in range(200):
        assert store.path_of(BlobId(f"{number:064x}")) is None
    assert asked == ["names"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "403 Forbidden"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "nobody answers at its endpoint"),
    ],
)
def test_a_start_with_a_wrong_setting_says_which_to_check(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(LocalError, match=f"{words}.*{name}"):
        ObjectShelf(machines.url).check()


def test_a_bucket_that_is_not_there_is_named(machines: Machines) -> None:
    with pytest.raises(LocalError, match=r"s3://no-such-bucket/x cannot be used: .*404"):
        ObjectShelf("s3://no-such-bucket/x").check()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/x", "s3://", "s3://key:secret@bucket/x", "s3://b/x?key=secret", ""]
)
def test_an_address_of_another_kind_is_refused_without_telling_a_secret(url: str) -> None:
    with pytest.raises(LocalError, match="s3://bucket/prefix") as refused:
        ObjectShelf(url)
    assert "key:secret" not in str(refused.value)


def test_a_peer_serves_over_libp2p_what_only_the_storage_has(
    machines: Machines, runner: asyncio.Runner, nodes: Nodes
) -> None:
    source = machines.file(3 * MIB + 1)
    blob = machines.store("one").add_file(source)

    async def fetch() -> tuple[Path, Path | None]:
        empty = await NetworkClient.start(config(machines.folder / "p", shelf=machines.url), echo)
        try:
            provider = Provider(peer=empty.peer_id, addresses=empty.addresses)
            return await nodes.third.fetch_blob(blob, [provider]), await empty.blob_path(blob)
        finally:
            await empty.stop()

    fetched, brought = runner.run(fetch())
    assert fetched.read_bytes() == source.read_bytes()
    assert brought is not None
    assert brought.is_relative_to(machines.folder / "p")


def test_what_is_forgotten_is_gone_from_folder_and_shelf_for_every_machine(
    machines: Machines,
) -> None:
    one, other = machines.store("one"), machines.store("other")
    blob, kept = one.add_file(machines.file(MIB)), one.add_file(machines.file(5))
    assert other.sizes() == {blob: 0, kept: 0}
    assert other.path_of(blob) is not None
    assert other.sizes() == {blob: MIB, kept: 0}
    one.forget(blob)
    one.forget(blob)  # cut short and done again
    other.drop(blob)
    for store in (one, other, machines.store("third")):
        assert store.path_of(blob) is None
        assert store.manifest_bytes(blob) is None
        assert not store.has(blob)
        assert store.has(kept)
    assert set(one.sizes()) == {kept}


def test_what_was_forgotten_and_is_made_anew_goes_to_the_shelf_again(machines: Machines) -> None:
    one, other = machines.store("one"), machines.store("other")
    source = machines.file(MIB)
    blob = one.add_file(source)
    assert other.has(blob)
    one.forget(blob)
    assert other.manifest_bytes(blob) is None, "it looks, and knows better from then on"
    assert other.add_file(source) == blob
    assert machines.store("third").has(blob)


def test_a_kill_while_a_blob_is_removed_from_the_shelf_leaves_it_to_be_forgotten_again(
    machines: Machines, server: S3Server
) -> None:
    """Killed after the manifest is gone from the bucket, before the data is."""
    one = machines.store("one")
    blob = one.add_file(machines.file(MIB))
    raw_objects(server, machines).delete(f"{blob[:2]}/{blob}.manifest")
    again = machines.store("one")
    assert blob in again.sizes(), "the folder has it still"
    again.forget(blob)
    assert again.sizes() == {}
    assert machines.store("third").sizes() == {}


def test_an_unanswered_question_is_the_storages_fault_not_ours(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unreachable):
        ObjectShelf(machines.url).manifest(BlobId("77" * 32))
