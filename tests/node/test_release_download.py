"""Downloading a release: whole and verified, or not at all."""

import asyncio
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from node.scripted import NOW_MS, blob_of
from protocol.samples import BLOB, COORDINATOR, FOUNDER, NODE, SWARM

from kinoswarm_network.coordinator_client import CoordinatorClient
from kinoswarm_node.ports import OnBytes
from kinoswarm_node.release_download import (
    Downloaded,
    ReleaseSource,
    download_release,
    find_release,
)
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.errors import (
    BadSignature,
    Code,
    HashMismatch,
    KinoswarmError,
    LocalError,
    MalformedBytes,
    Refused,
    Unreachable,
)
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import (
    RELEASE,
    REPLY,
    REQUEST,
    ExpertRef,
    Lookup,
    Records,
    ReleaseFile,
    ReleaseManifest,
    Reply,
)
from kinoswarm_protocol.records import Authority, ReleaseRecord, seal_record
from kinoswarm_protocol.snapshot import RELEASE_TABLE_NAME

FILES = {"model_index.json": b"{}", "experts/0/weights.safetensors": b"w" * 1000}
STRANGER = KeyPair(bytes(range(7, 39)))


@dataclass
class Publisher:
    """A coordinator that publishes releases, honest or not."""

    signer: KeyPair = COORDINATOR
    manifest_changes: dict[str, Any] = field(default_factory=dict)
    versions: tuple[int, ...] = (1,)
    broken: set[BlobId] = field(default_factory=set)
    """Blobs whose download fails."""

    def __post_init__(self) -> None:
        self.blobs = {blob_of(data): data for data in FILES.values()}
        self.records = [self._publish(version) for version in self.versions]
        self.fetched: list[BlobId] = []

    def _publish(self, version: int) -> bytes:
        manifest = ReleaseManifest(
            version=version,
            swarm_name="Test swarm",
            created_at_ms=NOW_MS,
            experts=[ExpertRef(cluster=0, lineage=0, version=2, checkpoint=BLOB)],
            files=[
                ReleaseFile(path=name, blob=blob_of(data), size_bytes=len(data))
                for name, data in FILES.items()
            ],
            router_accuracy=[],
            share_by_expert=[1.0],
            charter_sha256=SWARM,
        )
        changed = structs.replace(manifest, **self.manifest_changes)
        raw = seal(self.signer, RELEASE, SWARM, changed)
        self.blobs[blob_of(raw)] = raw
        record = ReleaseRecord(version=version, blob=blob_of(raw))
        return seal_record(COORDINATOR, SWARM, record, NOW_MS).value

    async def ask(self, raw: bytes) -> bytes:
        request = open_envelope(raw, REQUEST, SWARM).body
        assert request.body == Lookup(key="release")
        body = Records(records=self.records)
        reply = Reply(request_id=request.request_id, time_ms=NOW_MS, body=body)
        return seal(COORDINATOR, REPLY, SWARM, reply)

    def source(self, store: Path) -> ReleaseSource:
        async def fetch(blob: BlobId, on_bytes: OnBytes) -> Path:
            if blob in self.broken:
                raise Unreachable("the connection broke")
            self.fetched.append(blob)
            path = store / blob
            store.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.blobs[blob])
            on_bytes(len(self.blobs[blob]), len(self.blobs[blob]))
            return path

        client = CoordinatorClient(NODE, SWARM, [COORDINATOR.peer_id], [self], lambda: NOW_MS)
        authority = Authority(SWARM, FOUNDER.peer_id, frozenset({COORDINATOR.peer_id}))

        async def look_up(key: str) -> list[bytes]:
            return (await client.ask(Lookup(key=key), Records)).records

        return ReleaseSource(look_up, authority, fetch, lambda: NOW_MS)


def download(publisher: Publisher, folder: Path, shown: list[int] | None = None) -> Downloaded:
    def on_bytes(done: int, total: int) -> None:
        assert 0 <= done <= total
        if shown is not None:
            shown.append(done)

    source = publisher.source(folder.with_name("store"))
    return asyncio.run(download_release(source, folder, on_bytes))


def test_a_release_lies_whole_in_its_folder(tmp_path: Path) -> None:
    shown: list[int] = []
    got = download(Publisher(), tmp_path / "out" / "model", shown)
    assert {name: (got.folder / name).read_bytes() for name in FILES} == FILES
    assert (got.fresh, got.size_bytes, got.manifest.version) == (True, 1002, 1)
    assert shown == sorted(shown)
    assert shown[-1] == 1002
    kept = (got.folder / RELEASE_TABLE_NAME).read_bytes()
    assert open_envelope(kept, RELEASE, SWARM).signer == COORDINATOR.peer_id


def test_the_newest_release_is_taken(tmp_path: Path) -> None:
    assert download(Publisher(versions=(2, 10, 9)), tmp_path / "model").manifest.version == 10


def test_a_release_that_is_there_already_is_not_fetched_again(tmp_path: Path) -> None:
    publisher = Publisher()
    download(publisher, tmp_path / "model")
    fetched = len(publisher.fetched)
    assert not download(publisher, tmp_path / "model").fresh
    assert len(publisher.fetched) == fetched + 1  # the table of contents alone


def test_another_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.tex").write_text("years of work")
    with pytest.raises(LocalError, match=r"holds something else .* choose another --out"):
        download(Publisher(), tmp_path / "model")
    assert (tmp_path / "model" / "thesis.tex").read_text() == "years of work"


def test_a_download_that_breaks_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    publisher = Publisher(broken={blob_of(FILES["experts/0/weights.safetensors"])})
    with pytest.raises(Unreachable, match="the connection broke"):
        download(publisher, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    publisher.broken.clear()
    assert download(publisher, tmp_path / "model").fresh


def test_what_a_killed_download_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".model.new" / "experts").mkdir(parents=True)
    (tmp_path / ".model.new" / "experts" / "stale").write_text("half")
    got = download(Publisher(), tmp_path / "model")
    assert not (got.folder / "experts" / "stale").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "store"]


def test_a_full_disk_is_told_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    publisher = Publisher()
    with pytest.raises(LocalError, match="the disk is full: 1002 bytes are needed"):
        download(publisher, tmp_path / "model")
    assert len(publisher.fetched) == 1


def file(path: str, size: int = 2) -> ReleaseFile:
    return ReleaseFile(path=path, blob=blob_of(b"{}"), size_bytes=size)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"charter_sha256": "00" * 32}, HashMismatch, "another charter"),
        ({"version": 7}, MalformedBytes, "the record names release 1"),
        ({"files": [file("a", size=3)]}, HashMismatch, "a: 2 bytes, the release names 3"),
        ({"files": [file("a"), file("A")]}, MalformedBytes, "names a path twice"),
        ({"files": [file("a"), file("a/b")]}, MalformedBytes, "names a path twice"),
        ({"files": [file(RELEASE_TABLE_NAME)]}, MalformedBytes, "names a path twice"),
    ],
)
def test_a_dishonest_table_of_contents_is_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[KinoswarmError], words: str
) -> None:
    with pytest.raises(error, match=words):
        download(Publisher(manifest_changes=changes), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "a/../b", "a//b", ".hidden", "a\\b"])
def test_a_path_out_of_the_folder_can_not_even_be_decoded(tmp_path: Path, path: str) -> None:
    with pytest.raises(MalformedBytes, match="matching regex"):
        download(Publisher(manifest_changes={"files": [file(path)]}), tmp_path / "model")


def test_a_release_signed_by_a_stranger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSignature, match="which is no coordinator"):
        download(Publisher(signer=STRANGER), tmp_path / "model")


def test_no_release_yet_says_how_to_watch(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no release yet; `kinoswarm status INVITE`") as caught:
        download(Publisher(versions=()), tmp_path / "model")
    assert caught.value.code is Code.NOT_FOUND


def test_records_of_strangers_are_not_believed(tmp_path: Path) -> None:
    publisher = Publisher()
    record = ReleaseRecord(version=99, blob=BLOB)
    forged = seal_record(STRANGER, SWARM, record, NOW_MS).value
    publisher.records.append(forged)
    source = publisher.source(tmp_path / "store")
    assert asyncio.run(find_release(source)).version == 1
    publisher.records = [forged]
    with pytest.raises(BadSignature, match="can't be believed"):
        asyncio.run(find_release(source))
