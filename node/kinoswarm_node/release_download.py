"""Downloading a release: find the newest, check everything, put the folder in place in one step. Shows nothing."""

import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kinoswarm_network.durable import disk_errors, require_space, write_atomic
from kinoswarm_node.ports import OnBytes
from kinoswarm_protocol.envelope import Opened, open_envelope
from kinoswarm_protocol.errors import (
    BadSignature,
    Code,
    HashMismatch,
    LocalError,
    MalformedBytes,
    Refused,
    RemoteError,
)
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.messages import RELEASE, ReleaseFile, ReleaseManifest
from kinoswarm_protocol.records import RELEASE_KEY, Authority, ReleaseRecord, newest, open_record
from kinoswarm_protocol.snapshot import RELEASE_TABLE_NAME

_MAX_MANIFEST_FILE = RELEASE.max_bytes + 1024

LookUp = Callable[[str], Awaitable[list[bytes]]]
"""The signed records that somebody holds under a key, unchecked."""

Fetch = Callable[[BlobId, OnBytes], Awaitable[Path]]
"""Brings a blob here, verified; resumes what an earlier try left."""


@dataclass(frozen=True)
class Downloaded:
    """What lies in `folder` now; `fresh` is false when it lay there already."""

    folder: Path
    manifest: ReleaseManifest
    size_bytes: int
    fresh: bool


@dataclass(frozen=True)
class ReleaseSource:
    """Where a release comes from and whose signatures count."""

    look_up: LookUp
    authority: Authority
    fetch: Fetch
    now_ms: Callable[[], int]


async def find_release(source: ReleaseSource) -> ReleaseRecord:
    """The newest release that a coordinator signed. Raises Refused(not_found) when there is none yet."""
    records = await source.look_up(RELEASE_KEY)
    valid: list[Opened[ReleaseRecord]] = []
    problem = ""
    for raw in records:
        try:
            opened = open_record(raw, source.authority)
        except RemoteError as error:
            problem = str(error)
            continue
        if isinstance(opened.body, ReleaseRecord):
            valid.append(opened)
    best = newest(valid, source.now_ms())
    if best is not None:
        return best.body
    if problem:
        raise BadSignature(f"the swarm's release record can't be believed: {problem}")
    raise Refused(
        Code.NOT_FOUND,
        "the swarm has no release yet; `kinoswarm status INVITE` shows how far it is",
    )


async def download_release(source: ReleaseSource, folder: Path, on_bytes: OnBytes) -> Downloaded:
    """Put the newest release into `folder`, whole or not at all.

    Raises LocalError when `folder` holds something else or the disk is full, HashMismatch, BadSignature or
    MalformedBytes when something is not what it claims, Unreachable when nobody serves it.
    """
    record = await find_release(source)
    raw = _read_bounded(await source.fetch(BlobId(record.blob), _quietly))
    manifest = _checked_manifest(source, raw, record)
    size = sum(file.size_bytes for file in manifest.files)
    if _holds(folder, raw):
        return Downloaded(folder, manifest, size, fresh=False)
    _refuse_foreign_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    require_space(folder.parent, size)
    paths = await _fetch_all(source, manifest, size, on_bytes)
    _assemble(folder, manifest, paths, raw)
    return Downloaded(folder, manifest, size, fresh=True)


def _checked_manifest(source: ReleaseSource, raw: bytes, record: ReleaseRecord) -> ReleaseManifest:
    opened = open_envelope(raw, RELEASE, source.authority.swarm)
    if opened.signer not in source.authority.coordinators:
        raise BadSignature(f"the release is signed by {opened.signer}, which is no coordinator")
    if opened.body.version != record.version:
        raise MalformedBytes(
            f"the record names release {record.version}, its table of contents {opened.body.version}"
        )
    if opened.body.charter_sha256 != source.authority.swarm:
        raise HashMismatch("the release belongs to another charter than the invite's")
    _check_paths(opened.body.files)
    return opened.body


def _check_paths(files: list[ReleaseFile]) -> None:
    """No file twice (also where case does not count), and none that is another's folder."""
    names = [file.path.lower() for file in files]
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if len(set(names)) != len(names) or folders & set(names) or RELEASE_TABLE_NAME in names:
        raise MalformedBytes("the release's table of contents names a path twice")


async def _fetch_all(
    source: ReleaseSource, manifest: ReleaseManifest, size: int, on_bytes: OnBytes
) -> dict[str, Path]:
    """Every file's verified blob; `on_bytes` counts over all of them."""
    paths: dict[str, Path] = {}
    before = 0
    for file in manifest.files:
        path = await source.fetch(BlobId(file.blob), _shifted(on_bytes, before, size))
        if path.stat().st_size != file.size_bytes:
            raise HashMismatch(
                f"{file.path}: {path.stat().st_size} bytes, the release names {file.size_bytes}"
            )
        paths[file.path] = path
        before += file.size_bytes
        on_bytes(before, size)
    return paths


def _shifted(on_bytes: OnBytes, before: int, size: int) -> OnBytes:
    """Progress of one file as progress of all."""
    return lambda done, total: on_bytes(before + done, size)


def _assemble(folder: Path, manifest: ReleaseManifest, paths: dict[str, Path], raw: bytes) -> None:
    """Fill a folder beside the final one, then rename it."""
    staging = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    with disk_errors(staging, sum(file.size_bytes for file in manifest.files)):
        for name, source in paths.items():
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_durably(source, target)
        write_atomic(staging / RELEASE_TABLE_NAME, raw, 0o644)
        if folder.exists():
            folder.rmdir()  # _refuse_foreign_folder saw that it is empty
        staging.rename(folder)


def _copy_durably(source: Path, target: Path) -> None:
    """A file of its own: a link into a blob store would let an editor change the blob."""
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def _holds(folder: Path, raw: bytes) -> bool:
    try:
        return _read_bounded(folder / RELEASE_TABLE_NAME) == raw
    except OSError:
        return False


def _refuse_foreign_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LocalError(
            f"{folder} exists and holds something else than the newest release; "
            "choose another --out, or move it away"
        )


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_MANIFEST_FILE)


def _quietly(done: int, total: int) -> None:
    """A table of contents arrives in an instant."""
