"""Copies of a swarm's pages on any static host: reading, checking and keeping one. Owns these three; trusts no host.

Every file is compared with the coordinator's signed table of contents before it gets its name here.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import httpx

from kinoswarm_network.durable import (
    disk_errors,
    link_or_copy,
    remove_unnamed,
    require_space,
)
from kinoswarm_protocol.errors import HashMismatch, LimitExceeded, LocalError, Unreachable
from kinoswarm_protocol.ids import PeerId, SwarmId
from kinoswarm_protocol.limits import CHUNK_TIMEOUT_S, CONNECT_TIMEOUT_S, MAX_CHAIN_BYTES
from kinoswarm_protocol.snapshot import (
    CHARTER_NAME,
    SNAPSHOT,
    SNAPSHOT_NAME,
    SiteSnapshot,
    SnapshotFile,
    open_snapshot,
)

OnFile = Callable[[int, int], None]
"""Bytes done and bytes in all."""

_BLOCK = 1 << 20
_SLACK = 1_024


@dataclass(frozen=True, kw_only=True)
class CheckedCopy:
    """A copy whose table of contents and charter fit each other."""

    swarm: SwarmId
    name: str
    signer: PeerId
    coordinators: frozenset[PeerId]
    """Of the charter as amended."""
    snapshot: SiteSnapshot
    signed: bytes
    charter: bytes

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(entry.size_bytes for entry in self.snapshot.files)


class SiteCopy:
    """A copy at an http(s) address. Use it as a context."""

    def __init__(self, address: str) -> None:
        self.base_url = address.removesuffix("index.html").removesuffix(SNAPSHOT_NAME).rstrip("/")
        self._client = httpx.Client(
            timeout=httpx.Timeout(CHUNK_TIMEOUT_S, connect=CONNECT_TIMEOUT_S), follow_redirects=True
        )

    def __enter__(self) -> "SiteCopy":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def open(self, swarm: SwarmId | None = None) -> CheckedCopy:
        """Read and check the table of contents, at the address or under `snapshot/` of it.

        Raises Unreachable, or the errors of open_snapshot.
        """
        signed = self._settle()
        charter_raw = self.read(CHARTER_NAME, MAX_CHAIN_BYTES + _SLACK)
        opened, charter, found = open_snapshot(signed, charter_raw, swarm)
        return CheckedCopy(
            swarm=found,
            name=charter.name,
            signer=opened.signer,
            coordinators=frozenset(charter.coordinators),
            snapshot=opened.body,
            signed=signed,
            charter=charter_raw,
        )

    def _settle(self) -> bytes:
        """The table, unchecked; `base_url` is where it lies from here on."""
        try:
            return self.read(SNAPSHOT_NAME, SNAPSHOT.max_bytes + _SLACK)
        except Unreachable as error:
            given, self.base_url = self.base_url, self.base_url + "/snapshot"
            try:
                return self.read(SNAPSHOT_NAME, SNAPSHOT.max_bytes + _SLACK)
            except Unreachable:
                self.base_url = given
                raise error from None

    def read(self, path: str, max_bytes: int) -> bytes:
        """A file's bytes, unchecked. Raises Unreachable or LimitExceeded."""
        held = bytearray()
        for block in self._blocks(path):
            held += block
            if len(held) > max_bytes:
                raise LimitExceeded(f"{self.base_url}/{path}: over {max_bytes} bytes")
        return bytes(held)

    def save(self, entry: SnapshotFile, target: Path) -> None:
        """Put a file of the table into `target`, which appears only when every byte is as signed.

        Raises HashMismatch, Unreachable, or LocalError when the disk is full.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        digest, size = hashlib.sha256(), 0
        with disk_errors(target, entry.size_bytes), part.open("wb") as file:
            for block in self._blocks(entry.path):
                size += len(block)
                if size > entry.size_bytes:
                    break
                digest.update(block)
                file.write(block)
        if size != entry.size_bytes or digest.hexdigest() != entry.sha256:
            part.unlink()
            raise HashMismatch(
                f"{entry.path} at {self.base_url} is not what was signed: it is being renewed (try again in a "
                "minute) or somebody changed it"
            )
        os.replace(part, target)

    def _blocks(self, path: str) -> Iterator[bytes]:
        url = f"{self.base_url}/{path}"
        try:
            with self._client.stream("GET", url) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise Unreachable(f"{url} answered with status {answer.status_code}")
                yield from answer.iter_bytes(_BLOCK)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(f"{url} can't be read: {error or type(error).__name__}") from error


def check_all(site: SiteCopy, copy: CheckedCopy, scratch: Path, on_file: OnFile) -> list[str]:
    """Read every file of a copy; returns a sentence for each that is not as signed."""
    wrong: list[str] = []
    done = 0
    for entry in copy.snapshot.files:
        target = scratch / "file"
        try:
            site.save(entry, target)
        except (HashMismatch, Unreachable) as error:
            wrong.append(str(error))
        target.unlink(missing_ok=True)
        done += entry.size_bytes
        on_file(done, copy.size_bytes)
    return wrong


def keep_copy(site: SiteCopy, copy: CheckedCopy, folder: Path, on_file: OnFile) -> int:
    """Make `folder` this copy, whole or not at all; returns how many bytes had to be fetched.

    Files that the copy held there before are linked, not fetched. A crash at any moment leaves the old copy or the new
    one; files of an unfinished one are used by the next try. Raises HashMismatch, Unreachable or LocalError.
    """
    coming = folder.with_name(f".{folder.name}.coming")
    _refuse_foreign(folder)
    missing = [
        e for e in copy.snapshot.files if not _have(coming, e) and not _link_old(folder, coming, e)
    ]
    coming.mkdir(parents=True, exist_ok=True)
    require_space(coming, sum(entry.size_bytes for entry in missing))
    done = copy.size_bytes - sum(entry.size_bytes for entry in missing)
    for entry in missing:
        site.save(entry, coming / entry.path)
        done += entry.size_bytes
        on_file(done, copy.size_bytes)
    (coming / SNAPSHOT_NAME).write_bytes(copy.signed)
    remove_unnamed(coming, {SNAPSHOT_NAME, *(entry.path for entry in copy.snapshot.files)})
    _swap(coming, folder)
    return sum(entry.size_bytes for entry in missing)


def recover(folder: Path) -> None:
    """Finish a swap that a crash broke in the middle."""
    old = folder.with_name(f".{folder.name}.old")
    if not folder.exists() and old.is_dir():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _swap(coming: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    recover(folder)
    if folder.exists():
        folder.rename(old)
    coming.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _refuse_foreign(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SNAPSHOT_NAME).is_file():
        raise LocalError(f"{folder} holds something else than a copy; choose another folder")


def _have(folder: Path, entry: SnapshotFile) -> bool:
    path = folder / entry.path
    if not path.is_file() or path.stat().st_size != entry.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256


def _link_old(folder: Path, coming: Path, entry: SnapshotFile) -> bool:
    if not _have(folder, entry):
        return False
    link_or_copy(folder / entry.path, coming / entry.path)
    return True
