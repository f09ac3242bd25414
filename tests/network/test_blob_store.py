"""The blob store: whole, verified blobs or nothing, whatever is interrupted."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kinoswarm_network import partial_blob
from kinoswarm_network.blob_store import BlobStore, verify_file
from kinoswarm_protocol.errors import HashMismatch, LocalError
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.manifest import BlobManifest, encode_manifest, manifest_of

CHUNK = 16
DATA = bytes(range(100))


def named(data: bytes, chunk: int = CHUNK) -> tuple[BlobId, bytes, list[bytes]]:
    pieces = [data[start : start + chunk] for start in range(0, len(data), chunk)]
    blob, raw = encode_manifest(manifest_of(pieces, chunk))
    return blob, raw, pieces


def fill(partial: partial_blob.PartialBlob, pieces: list[bytes]) -> None:
    for index, piece in enumerate(pieces):
        partial.write_chunk(index, piece)


def download(store: BlobStore, data: bytes) -> BlobId:
    blob, raw, pieces = named(data)
    partial = store.begin(blob, raw)
    for index in partial.missing:
        partial.write_chunk(index, pieces[index])
    store.finish(partial)
    return blob


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_an_ingested_file_is_found_whole_under_its_hash(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "store")
    source = write(tmp_path / "source", os.urandom(2_500_000))
    blob = store.add_file(source)
    assert store.add_file(source) == blob
    path = store.path_of(blob)
    assert path is not None
    assert path.read_bytes() == source.read_bytes()
    assert verify_file(path, store.manifest(blob))
    assert [stored.blob for stored in store.blobs()] == [blob]
    assert store.read_range(blob, 2_499_990, 100) == source.read_bytes()[-10:]


def test_later_changes_of_the_source_do_not_reach_the_blob(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "store")
    source = write(tmp_path / "source", b"first")
    blob = store.add_file(source)
    source.write_bytes(b"other")
    path = store.path_of(blob)
    assert path is not None
    assert path.read_bytes() == b"first"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.binary(max_size=100), order=st.randoms(use_true_random=False))
def test_chunks_may_come_in_any_order(tmp_path: Path, data: bytes, order: Any) -> None:
    store = BlobStore(tmp_path / "store")
    blob, raw, pieces = named(data)
    store.drop(blob)
    partial = store.begin(blob, raw)
    indexes = partial.missing
    order.shuffle(indexes)
    for index in indexes:
        assert store.path_of(blob) is None
        partial.write_chunk(index, pieces[index])
    assert store.finish(partial).read_bytes() == data


def test_a_wrong_chunk_is_refused_and_stays_wanted(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    blob, raw, pieces = named(DATA)
    partial = store.begin(blob, raw)
    with pytest.raises(HashMismatch):
        partial.write_chunk(0, bytes(CHUNK))
    partial.write_chunk(1, pieces[1])
    assert partial.missing == [0, 2, 3, 4, 5, 6]
    with pytest.raises(LocalError, match="still lacks 6 of 7 chunks"):
        store.finish(partial)
    partial.close()


def test_a_download_resumes_with_what_arrived(tmp_path: Path) -> None:
    blob, raw, pieces = named(DATA)
    first = BlobStore(tmp_path).begin(blob, raw)
    first.write_chunk(3, pieces[3])
    first.write_chunk(6, pieces[6])
    first.close()
    store = BlobStore(tmp_path)
    assert store.partial_manifest(blob) == raw
    second = store.begin(blob, raw)
    assert second.missing == [0, 1, 2, 4, 5]
    assert second.done_bytes == CHUNK + 4
    second.discard()
    assert store.partial_manifest(blob) is None


@pytest.mark.parametrize("suffix", ["data", "chunks", "manifest"])
@pytest.mark.parametrize("size", [0, 1, 5, 50])
def test_a_torn_partial_costs_chunks_and_never_the_blob(
    tmp_path: Path, suffix: str, size: int
) -> None:
    blob, raw, pieces = named(DATA)
    partial = BlobStore(tmp_path).begin(blob, raw)
    for index in range(5):
        partial.write_chunk(index, pieces[index])
    partial.close()
    os.truncate(tmp_path / "partial" / f"{blob}.{suffix}", size)
    store = BlobStore(tmp_path)
    assert download(store, DATA) == blob
    path = store.path_of(blob)
    assert path is not None
    assert path.read_bytes() == DATA


def test_a_chunk_that_rotted_on_disk_is_wanted_again(tmp_path: Path) -> None:
    blob, raw, pieces = named(DATA)
    partial = BlobStore(tmp_path).begin(blob, raw)
    partial.write_chunk(0, pieces[0])
    partial.close()
    with (tmp_path / "partial" / f"{blob}.data").open("r+b") as file:
        file.write(b"\xff")
    resumed = BlobStore(tmp_path).begin(blob, raw)
    assert 0 in resumed.missing
    resumed.close()


def test_two_downloads_of_one_blob_do_not_share_files(tmp_path: Path) -> None:
    blob, raw, _ = named(DATA)
    partial = BlobStore(tmp_path).begin(blob, raw)
    with pytest.raises(LocalError, match="another process is downloading blob"):
        BlobStore(tmp_path).begin(blob, raw)
    partial.close()


def test_a_download_that_begins_while_another_ends_keeps_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the rename to the final name and the end of the first one's clean-up."""
    blob, raw, pieces = named(DATA)
    first, other = BlobStore(tmp_path), BlobStore(tmp_path)
    partial = first.begin(blob, raw)
    fill(partial, pieces)
    begun = []
    admit = first.admit

    def and_another_begins(*of: Any) -> Path:
        path = admit(*of)
        begun.append(other.begin(blob, raw))
        return path

    monkeypatch.setattr(first, "admit", and_another_begins)
    first.finish(partial)
    fill(begun[0], pieces)
    assert other.finish(begun[0]).read_bytes() == DATA


def test_a_download_never_begins_in_a_file_that_was_just_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, a sweep that had the lock deletes the file."""
    blob, raw, pieces = named(DATA)
    store = BlobStore(tmp_path)
    store.begin(blob, raw).close()
    lock = partial_blob.try_lock

    def after_a_sweep(handle: int) -> bool:
        monkeypatch.setattr(partial_blob, "try_lock", lock)
        assert store.drop_partial(blob)
        return lock(handle)

    monkeypatch.setattr(partial_blob, "try_lock", after_a_sweep)
    partial = store.begin(blob, raw)
    fill(partial, pieces)
    assert store.finish(partial).read_bytes() == DATA


def test_a_sweep_leaves_a_download_alone_that_began_while_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had opened the files of an earlier one, which finished; and it deletes nothing once its lock is gone."""
    blob, raw, pieces = named(DATA)
    store, sweeper = BlobStore(tmp_path), BlobStore(tmp_path)
    first = store.begin(blob, raw)
    begun: list[partial_blob.PartialBlob] = []
    lock = partial_blob.try_lock

    def after_another_began(handle: int) -> bool:
        monkeypatch.setattr(partial_blob, "try_lock", lock)
        first.discard()
        begun.append(store.begin(blob, raw))
        return lock(handle)

    monkeypatch.setattr(partial_blob, "try_lock", after_another_began)
    assert not sweeper.drop_partial(blob)
    fill(begun[0], pieces)
    assert store.finish(begun[0]).read_bytes() == DATA
    assert sweeper.drop_partial(blob)
    assert list((tmp_path / "partial").iterdir()) == []


def test_what_lies_in_a_download_without_its_manifest_is_known_and_swept(tmp_path: Path) -> None:
    blob, raw, _ = named(DATA)
    store = BlobStore(tmp_path)
    store.begin(blob, raw).close()
    (tmp_path / "partial" / f"{blob}.manifest").unlink()
    assert list(store.partials()) == [blob]
    assert store.drop_partial(blob)
    assert store.partials() == {}


def test_a_foreign_manifest_is_refused(tmp_path: Path) -> None:
    _, raw, _ = named(DATA)
    with pytest.raises(HashMismatch):
        BlobStore(tmp_path).begin(BlobId("00" * 32), raw)


def test_the_least_recently_used_unpinned_blob_makes_room(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "store", quota_bytes=250)
    old, pinned, new = (
        store.add_file(write(tmp_path / "source", bytes([value]) * 80)) for value in range(3)
    )
    store.pin(pinned, True)
    for age, blob in enumerate([new, old, pinned]):
        os.utime(store.root / blob[:2] / f"{blob}.manifest", (1000 - age, 1000 - age))
    added = store.add_file(write(tmp_path / "source", b"x" * 80))
    assert {stored.blob for stored in store.blobs()} == {pinned, new, added}


def test_a_full_quota_says_how_much_was_needed(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "store", quota_bytes=100)
    store.pin(store.add_file(write(tmp_path / "source", b"x" * 80)), True)
    with pytest.raises(LocalError, match="quota of 100 bytes is full: 81 bytes are needed"):
        store.add_file(write(tmp_path / "source", b"y" * 81))


def test_a_blob_larger_than_the_disk_is_refused_before_it_begins(tmp_path: Path) -> None:
    chunk = 64 * 1024 * 1024
    manifest = BlobManifest(200 * 2**30, chunk, bytes(32) * (200 * 16))
    blob, raw = encode_manifest(manifest)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    if free > manifest.size_bytes:
        pytest.skip("this disk really has room for the blob")
    with pytest.raises(LocalError, match=f"{manifest.size_bytes} bytes are needed"):
        BlobStore(tmp_path).begin(blob, raw)


def test_what_a_dead_process_left_incoming_is_removed(tmp_path: Path) -> None:
    BlobStore(tmp_path)
    dead = write(tmp_path / "incoming" / f"{2**22 + 1}-abc", b"half")
    living = write(tmp_path / "incoming" / f"{os.getpid()}-abc", b"half")
    BlobStore(tmp_path)
    assert not dead.exists()
    assert living.exists()


def _ends_at_file_operation(number: int, work: Any) -> bool:
    """Run `work` in a forked process that ends like a kill -9 just before its `number`-th file operation."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
    remaining = number

    def hook(event: str, _: Any) -> None:
        nonlocal remaining
        if event.startswith(("open", "os.", "fcntl.", "tempfile.")):
            remaining -= 1
            if remaining == 0:
                os._exit(9)

    sys.addaudithook(hook)
    work()
    os._exit(0)


def test_a_crash_before_any_file_operation_leaves_a_store_that_opens(tmp_path: Path) -> None:
    source = write(tmp_path / "source", os.urandom(50))
    removed = BlobStore(tmp_path / "store").add_file(write(tmp_path / "other", b"other"))

    def work() -> None:
        store = BlobStore(tmp_path / "store")
        store.add_file(source)
        store.drop(download(store, DATA))
        download(store, DATA)
        store.drop(removed)

    number = 1
    while _ends_at_file_operation(number, work):
        store = BlobStore(tmp_path / "store")
        for stored in store.blobs():
            path = store.path_of(stored.blob)
            assert path is not None
            assert verify_file(path, store.manifest(stored.blob))
        number += 1
    assert number > 50
    assert store.path_of(removed) is None
    assert {stored.size_bytes for stored in BlobStore(tmp_path / "store").blobs()} == {50, 100}
