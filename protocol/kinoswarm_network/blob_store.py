"""Blobs in a folder: a data file lies under its final name only when it is complete and verified.

Owns the folder's layout. `<ab>/<id>` is the data, `<ab>/<id>.manifest` its manifest (written first, removed last),
`<ab>/<id>.pin` keeps it from eviction; `partial/` holds downloads, `incoming/` files being taken in. Every step is a
rename or harmless when cut short, so a crash at any point leaves a store that opens. Must not know networks.
"""

import hashlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kinoswarm_network.durable import disk_errors, require_space, sync_folder, write_atomic
from kinoswarm_network.partial_blob import PartialBlob
from kinoswarm_protocol.errors import HashMismatch, LocalError, MalformedBytes
from kinoswarm_protocol.ids import BlobId, parse_blob_id
from kinoswarm_protocol.limits import CHUNK_BYTES
from kinoswarm_protocol.manifest import (
    BlobManifest,
    decode_manifest,
    encode_manifest,
    manifest_of,
)

_ORPHAN_AGE_S = 86_400.0
"""A manifest without data is what a crash left; a young one may belong to a blob that is just arriving."""


@dataclass(frozen=True)
class StoredBlob:
    """One complete blob: its size in bytes, whether eviction spares it, when it was last used (seconds)."""

    blob: BlobId
    size_bytes: int
    pinned: bool
    used_at_s: float


class BlobStore:
    """A folder of blobs. Methods block on the disk; several threads and processes may use one folder."""

    def __init__(self, root: Path, quota_bytes: int = 0) -> None:
        """Open or create the store. `quota_bytes` 0 is off. Raises LocalError when the folder cannot be used."""
        self.root = root
        self.quota_bytes = quota_bytes
        with disk_errors(root, 4_096):
            (root / "partial").mkdir(parents=True, exist_ok=True)
            (root / "incoming").mkdir(exist_ok=True)
        self._remove_abandoned()

    def has(self, blob: BlobId) -> bool:
        """Whether the complete blob can be read from here."""
        return self._data(blob).is_file() and self._manifest(blob).is_file()

    def local_path_of(self, blob: BlobId) -> Path | None:
        """The complete data file of `blob` in this very folder, or None. Counts as a use."""
        if not BlobStore.has(self, blob):
            return None
        self._touch(blob)
        return self._data(blob)

    def path_of(self, blob: BlobId) -> Path | None:
        """The complete data file of `blob`, or None. Counts as a use."""
        return self.local_path_of(blob)

    def manifest_bytes(self, blob: BlobId) -> bytes | None:
        """The encoded manifest of a complete blob, or None."""
        return self._manifest(blob).read_bytes() if self.local_path_of(blob) else None

    def manifest(self, blob: BlobId) -> BlobManifest:
        """The manifest of a complete blob; raises LocalError when it is not here or damaged."""
        raw = self.manifest_bytes(blob)
        if raw is None:
            raise LocalError(f"blob {blob[:12]}… is not in {self.root}")
        try:
            return decode_manifest(blob, raw)
        except (HashMismatch, MalformedBytes) as error:
            raise LocalError(
                f"the manifest of {blob[:12]}… in {self.root} is damaged: {error}"
            ) from error

    def read_range(self, blob: BlobId, start: int, size: int) -> bytes:
        """Up to `size` bytes from offset `start`; fewer at the end. Raises LocalError when the blob is not here."""
        try:
            with self._data(blob).open("rb") as file:
                file.seek(start)
                return file.read(size)
        except FileNotFoundError:
            raise LocalError(f"blob {blob[:12]}… is not in {self.root}") from None

    def manifest_on_disk(self, blob: BlobId) -> BlobManifest | None:
        """The manifest in this very folder, or None; no use of the blob. Raises HashMismatch when it is damaged."""
        if not BlobStore.has(self, blob):
            return None
        try:
            return decode_manifest(blob, self._manifest(blob).read_bytes())
        except FileNotFoundError:
            return None
        except MalformedBytes as error:
            raise HashMismatch(f"its manifest is damaged: {error}") from error

    def check_chunk(self, blob: BlobId, manifest: BlobManifest, index: int) -> None:
        """Read a chunk of this folder again. Raises HashMismatch when it rotted, LocalError when it is gone."""
        start, size = index * manifest.chunk_bytes, manifest.chunk_size(index)
        manifest.verify_chunk(index, BlobStore.read_range(self, blob, start, size))

    def unverify(self, blob: BlobId) -> None:
        """Take a damaged blob back to `partial/`: its good chunks are kept, the others are fetched again.

        The rename is what hides it; before it the damaged blob is still there, to be found by the next check.
        """
        partial = self.root / "partial"
        with disk_errors(self.root, 4_096):
            try:
                manifest = self.manifest_on_disk(blob)
            except HashMismatch:
                self.drop(blob)
                return
            if manifest is None:
                return
            write_atomic(partial / f"{blob}.manifest", self._manifest(blob).read_bytes())
            write_atomic(partial / f"{blob}.chunks", b"\x01" * manifest.num_chunks)
            self._data(blob).chmod(0o600)
            self._data(blob).replace(partial / f"{blob}.data")
            sync_folder(partial)
            self._manifest(blob).unlink(missing_ok=True)

    def blobs(self) -> list[StoredBlob]:
        """All complete blobs, least recently used first."""
        return sorted(self._scan(), key=lambda stored: (stored.used_at_s, stored.blob))

    def sizes(self) -> dict[BlobId, int]:
        """Every complete blob that can be had through this store, with its bytes in this very folder."""
        return {entry.blob: entry.size_bytes for entry in self._scan()}

    def add_file(self, source: Path) -> BlobId:
        """Copy `source` into the store and return its name; nothing happens when it is there already.

        Raises LocalError when the file cannot be read or the disk or quota is full.
        """
        try:
            size = source.stat().st_size
            file = source.open("rb")
        except OSError as error:
            raise LocalError(f"cannot read {source}: {error.strerror}") from error
        incoming = self.root / "incoming" / f"{os.getpid()}-{secrets.token_hex(8)}"
        with file, disk_errors(self.root, size):
            self.make_room(size)
            require_space(self.root, size)
            try:
                manifest = _copy(file, incoming)
                blob, raw = encode_manifest(manifest)
                if self.local_path_of(blob) is None:
                    self.admit(blob, raw, incoming)
            finally:
                incoming.unlink(missing_ok=True)
        return blob

    def admit(self, blob: BlobId, manifest_raw: bytes, verified: Path) -> Path:
        """Give a complete, verified, synced file its final name. The caller vouches for its bytes."""
        final = self._data(blob)
        write_atomic(self._manifest(blob), manifest_raw, 0o644)
        if sys.platform != "win32":  # a read-only file can't be deleted there
            verified.chmod(0o444)
        verified.replace(final)
        sync_folder(final.parent)
        return final

    def begin(self, blob: BlobId, manifest_raw: bytes) -> PartialBlob:
        """Start or resume the download of `blob`.

        Raises HashMismatch or MalformedBytes for a wrong manifest, LocalError when the disk or quota is full,
        DownloadHeld when another process is downloading the same blob.
        """
        manifest = decode_manifest(blob, manifest_raw)
        self.make_room(manifest.size_bytes)
        partial = PartialBlob(self.root / "partial", blob, manifest_raw, manifest)
        try:
            require_space(self.root, manifest.size_bytes - partial.done_bytes)
        except LocalError:
            partial.close()
            raise
        return partial

    def partial_manifest(self, blob: BlobId) -> bytes | None:
        """The manifest that an interrupted download of `blob` left, or None."""
        path = self.root / "partial" / f"{blob}.manifest"
        return path.read_bytes() if path.is_file() else None

    def partials(self) -> dict[BlobId, float]:
        """Downloads that are not complete, with the time (s) at which each last grew."""
        found: dict[BlobId, float] = {}
        for path in (self.root / "partial").iterdir():
            with suppress(FileNotFoundError, MalformedBytes):  # finished just now; no file of ours
                blob, grew_at_s = parse_blob_id(path.stem), path.stat().st_mtime
                found[blob] = max(grew_at_s, found.get(blob, grew_at_s))
        return found

    def drop_partial(self, blob: BlobId) -> bool:
        """Delete what an interrupted download of `blob` left, unless somebody goes on with it right now."""
        return PartialBlob.remove_if_idle(self.root / "partial", blob)

    def finish(self, partial: PartialBlob) -> Path:
        """Turn a complete download into a blob; raises LocalError when chunks are missing."""
        verified = partial.seal()
        if sys.platform == "win32":
            partial.close()  # no open file is renamed there
        path = self.admit(partial.blob, partial.manifest_raw, verified)
        partial.done()
        return path

    def drop(self, blob: BlobId) -> None:
        """Delete a blob and what an interrupted download of it left; unknown blobs are no error."""
        for path in (self._data(blob), self._pin(blob), self._manifest(blob)):
            path.unlink(missing_ok=True)
        PartialBlob.remove_files(self.root / "partial", blob)

    def forget(self, blob: BlobId) -> None:
        """Drop a blob wherever this store has it."""
        self.drop(blob)

    def is_pinned(self, blob: BlobId) -> bool:
        """Whether eviction spares `blob`; it need not be here."""
        return self._pin(blob).exists()

    def pin(self, blob: BlobId, pinned: bool) -> None:
        """Keep `blob` from eviction, or allow it again. May come before the blob does."""
        if pinned:
            write_atomic(self._pin(blob), b"")
        else:
            self._pin(blob).unlink(missing_ok=True)

    def make_room(self, needed_bytes: int) -> None:
        """Evict the least recently used, unpinned blobs until `needed_bytes` fit the quota; raises LocalError."""
        if not self.quota_bytes:
            return
        stored = self.blobs()
        excess = sum(entry.size_bytes for entry in stored) + needed_bytes - self.quota_bytes
        evictable = [entry for entry in stored if not entry.pinned]
        if excess > sum(entry.size_bytes for entry in evictable):
            raise LocalError(
                f"the disk quota of {self.quota_bytes} bytes is full: {needed_bytes} bytes are needed in {self.root} "
                "and what is there is pinned; raise the quota or unpin something"
            )
        for entry in evictable:
            if excess <= 0:
                break
            self.drop(entry.blob)
            excess -= entry.size_bytes

    def _data(self, blob: BlobId) -> Path:
        return self.root / blob[:2] / parse_blob_id(blob)

    def _manifest(self, blob: BlobId) -> Path:
        return self._data(blob).with_suffix(".manifest")

    def _pin(self, blob: BlobId) -> Path:
        return self._data(blob).with_suffix(".pin")

    def _touch(self, blob: BlobId) -> None:
        try:
            os.utime(self._manifest(blob))
        except FileNotFoundError:
            return  # dropped by another process a moment ago

    def _scan(self) -> Iterator[StoredBlob]:
        for manifest in self.root.glob("[0-9a-f][0-9a-f]/*.manifest"):
            try:
                size = manifest.with_suffix("").stat().st_size
                used_at_s = manifest.stat().st_mtime
            except FileNotFoundError:
                continue
            pinned = manifest.with_suffix(".pin").exists()
            yield StoredBlob(BlobId(manifest.stem), size, pinned, used_at_s)

    def _remove_abandoned(self) -> None:
        oldest_s = time.time() - _ORPHAN_AGE_S
        for path in (self.root / "incoming").iterdir():
            if _is_abandoned(path, oldest_s):
                path.unlink(missing_ok=True)
        for manifest in self.root.glob("[0-9a-f][0-9a-f]/*.manifest"):
            with suppress(FileNotFoundError):
                is_orphan = not manifest.with_suffix("").exists()
                if is_orphan and manifest.stat().st_mtime < oldest_s:
                    manifest.unlink()


def _copy(source: BinaryIO, target: Path) -> BlobManifest:
    """Copy in chunks, hashing what is written; returns the manifest of exactly those bytes."""
    with target.open("xb") as file:

        def chunks() -> Iterator[bytes]:
            while chunk := source.read(CHUNK_BYTES):
                file.write(chunk)
                yield chunk

        manifest = manifest_of(chunks())
        file.flush()
        os.fsync(file.fileno())
    return manifest


def verify_file(path: Path, manifest: BlobManifest) -> bool:
    """Whether `path` holds exactly the bytes that `manifest` describes."""
    if path.stat().st_size != manifest.size_bytes:
        return False
    with path.open("rb") as file:
        return all(
            hashlib.sha256(file.read(manifest.chunk_size(index))).digest()
            == manifest.chunk_hash(index)
            for index in range(manifest.num_chunks)
        )


def _is_abandoned(incoming: Path, oldest_s: float) -> bool:
    """Whether the process that its name begins with is gone; on Windows, which can't be asked so, by its age."""
    owner = incoming.name.split("-")[0]
    if sys.platform == "win32":
        return incoming.stat().st_mtime < oldest_s
    return not owner.isdigit() or not _is_running(int(owner))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
