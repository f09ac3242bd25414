"""A blob folder in front of S3-compatible storage: written through, read through, verified both ways.

Owns when the shelf is asked. What the folder lacks comes from the shelf, chunk by chunk and verified; what becomes
complete here goes there. A shelf that does not answer makes a blob "not here now" and never breaks what lies here.
"""

import logging
import threading
import time
from contextlib import suppress
from pathlib import Path

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.object_shelf import ObjectShelf
from kinoswarm_network.partial_blob import DownloadHeld, PartialBlob
from kinoswarm_protocol.errors import HashMismatch, LocalError, MalformedBytes, RemoteError
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.manifest import BlobManifest, decode_manifest

_LISTED_EVERY_S = 30.0
"""The list of the shelf is this old at most when something is missed: so strangers cannot run up a bill."""

_MANIFESTS_KEPT = 64
_WAIT_S = 0.2
_MOST_WAITS = 3_000
"""Ten minutes for a blob that another thread or process is bringing."""

_log = logging.getLogger(__name__)


def open_store(root: Path, quota_bytes: int, shelf_url: str) -> BlobStore:
    """The folder alone, or in front of a shelf (`shelf_url` s3://BUCKET/PREFIX). Raises LocalError."""
    if not shelf_url:
        return BlobStore(root, quota_bytes)
    return ShelvedBlobStore(root, quota_bytes, ObjectShelf(shelf_url))


class ShelvedBlobStore(BlobStore):
    """See BlobStore; `quota_bytes` bounds the folder as a cache, softly: what is not on the shelf yet stays."""

    def __init__(self, root: Path, quota_bytes: int, shelf: ObjectShelf) -> None:
        super().__init__(root, quota_bytes)
        self.shelf = shelf
        self._shelved: set[str] = set()
        self._listed_at_s = float("-inf")
        self._lock = threading.Lock()
        self._manifests: dict[BlobId, BlobManifest] = {}

    def has(self, blob: BlobId) -> bool:
        """Whether the blob can be had, from here or the shelf."""
        return super().has(blob) or self._is_shelved(blob)

    def path_of(self, blob: BlobId) -> Path | None:
        """The complete data file; brought from the shelf when the folder lacks it."""
        return super().path_of(blob) or (self._brought(blob) if self._is_shelved(blob) else None)

    def manifest_bytes(self, blob: BlobId) -> bytes | None:
        """The encoded manifest, from here or the shelf."""
        if super().has(blob):
            return super().manifest_bytes(blob)
        return self._shelved_manifest(blob)[0] if self._is_shelved(blob) else None

    def read_range(self, blob: BlobId, start: int, size: int) -> bytes:
        """Up to `size` bytes from offset `start`; of the folder, or of the shelf with every chunk verified."""
        if super().has(blob) or not self._is_shelved(blob):
            return super().read_range(blob, start, size)
        try:
            return self._read_shelved(blob, start, size)
        except RemoteError as error:
            raise self._not_now(blob, error) from error

    def admit(self, blob: BlobId, manifest_raw: bytes, verified: Path) -> Path:
        """Also put it on the shelf; when that fails, `catch_up` does it later."""
        final = super().admit(blob, manifest_raw, verified)
        if blob not in self._shelved:
            self._shelve(blob, manifest_raw, final)
        return final

    def sizes(self) -> dict[BlobId, int]:
        """Also what the shelf alone has, with 0 bytes here. Raises Unreachable when it cannot be listed."""
        self._list()
        return dict.fromkeys(map(BlobId, self._shelved), 0) | super().sizes()

    def forget(self, blob: BlobId) -> None:
        """From the shelf first: a kill in between leaves it here, to be forgotten again. Raises Unreachable."""
        self.shelf.remove(blob)
        with self._lock:
            self._shelved.discard(blob)
            self._manifests.pop(blob, None)
        self.drop(blob)

    def make_room(self, needed_bytes: int) -> None:
        """Evict the least recently used blobs that lie on the shelf too; a cache that is too small never refuses."""
        if not self.quota_bytes:
            return
        stored = self.blobs()
        excess = sum(entry.size_bytes for entry in stored) + needed_bytes - self.quota_bytes
        for entry in stored:
            if excess <= 0:
                return
            if entry.blob in self._shelved and not entry.pinned:
                self.drop(entry.blob)
                excess -= entry.size_bytes

    def catch_up(self) -> int:
        """Put what lies here alone on the shelf; how many. What fails is tried the next time."""
        try:
            self._list()
        except RemoteError as error:
            _log.warning("the shelf cannot be listed: %s", error)
            return 0
        missing = [entry.blob for entry in self.blobs() if entry.blob not in self._shelved]
        return sum(self._shelve_again(blob) for blob in missing)

    def _shelve_again(self, blob: BlobId) -> bool:
        path, raw = super().path_of(blob), super().manifest_bytes(blob)
        return path is not None and raw is not None and self._shelve(blob, raw, path)

    def _shelve(self, blob: BlobId, manifest_raw: bytes, path: Path) -> bool:
        try:
            self.shelf.put(blob, manifest_raw, path)
        except (RemoteError, FileNotFoundError) as error:
            _log.warning("blob %s… is not on the shelf yet: %s", blob[:12], error)
            return False
        with self._lock:
            self._shelved.add(blob)
        return True

    def _is_shelved(self, blob: BlobId) -> bool:
        if blob in self._shelved:
            return True
        if time.monotonic() - self._listed_at_s < _LISTED_EVERY_S:
            return False
        try:
            self._list()
        except RemoteError as error:
            _log.warning("the shelf cannot be listed: %s", error)
        return blob in self._shelved

    def _list(self) -> None:
        self._listed_at_s = (
            time.monotonic()
        )  # also when it fails: a dead shelf is not asked all the time
        names = self.shelf.names()
        with self._lock:
            self._shelved = names  # what another process removed is gone from it

    def _shelved_manifest(self, blob: BlobId) -> tuple[bytes | None, BlobManifest | None]:
        """The verified manifest; (None, None) when the shelf does not give it or gives a wrong one."""
        try:
            raw = self.shelf.manifest(blob)
            if raw is None:
                self._shelved.discard(blob)  # another process let it go
                return None, None
            return raw, decode_manifest(blob, raw)
        except RemoteError as error:
            _log.error("the manifest of %s… on the shelf cannot be used: %s", blob[:12], error)
            return None, None

    def _read_shelved(self, blob: BlobId, start: int, size: int) -> bytes:
        manifest = self._manifest_of(blob)
        end = min(start + size, manifest.size_bytes)
        if start >= end:
            return b""
        first, last = start // manifest.chunk_bytes, (end - 1) // manifest.chunk_bytes
        chunks = b"".join(
            self._verified_chunk(blob, manifest, index) for index in range(first, last + 1)
        )
        offset = start - first * manifest.chunk_bytes
        return chunks[offset : offset + end - start]

    def _manifest_of(self, blob: BlobId) -> BlobManifest:
        known = self._manifests.get(blob)
        if known is not None:
            return known
        _, manifest = self._shelved_manifest(blob)
        if manifest is None:
            raise MalformedBytes(f"no usable manifest of blob {blob[:12]}… is on the shelf")
        with self._lock:
            if len(self._manifests) >= _MANIFESTS_KEPT:
                self._manifests.clear()
            self._manifests[blob] = manifest
        return manifest

    def _verified_chunk(self, blob: BlobId, manifest: BlobManifest, index: int) -> bytes:
        data = self.shelf.read(blob, index * manifest.chunk_bytes, manifest.chunk_size(index))
        manifest.verify_chunk(index, data)
        return data

    def _brought(self, blob: BlobId) -> Path | None:
        """The blob from the shelf into the folder; resumes. None when the shelf does not give it."""
        raw, manifest = self._shelved_manifest(blob)
        if raw is None or manifest is None:
            return None
        try:
            partial = self._begin_in_turn(blob, raw)
            if partial is None:
                return super().path_of(blob)
            try:
                for index in partial.missing:
                    partial.write_chunk(index, self._verified_chunk(blob, manifest, index))
                return self.finish(partial)
            finally:
                partial.close()
        except RemoteError as error:
            _log.error("blob %s… could not be brought from the shelf: %s", blob[:12], error)
            return None

    def _begin_in_turn(self, blob: BlobId, raw: bytes) -> PartialBlob | None:
        """The download, once nobody else has it; None when somebody else finished it."""
        for _ in range(_MOST_WAITS):
            if super().has(blob):
                return None
            with suppress(DownloadHeld):
                return self.begin(blob, raw)
            time.sleep(_WAIT_S)
        raise LocalError(f"blob {blob[:12]}… is being brought by another process that does not end")

    def _not_now(self, blob: BlobId, error: RemoteError) -> LocalError:
        if isinstance(error, HashMismatch):
            _log.error("blob %s… is damaged on the shelf: %s", blob[:12], error)
        return LocalError(
            f"blob {blob[:12]}… is not in {self.root}, nor can the shelf give it now: {error}"
        )
