"""A release from a copy of the swarm's pages: records and blobs without a coordinator. Owns finding them in the copy.

Nothing here is trusted for its words: records and tables of contents are signed, and every blob's name is its hash.
"""

import asyncio
from pathlib import Path

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_node.ports import OnBytes
from kinoswarm_node.site_copy import CheckedCopy, SiteCopy
from kinoswarm_protocol.codec import decode
from kinoswarm_protocol.envelope import open_envelope
from kinoswarm_protocol.errors import Code, HashMismatch, Refused, RemoteError
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MAX_RECORD_BYTES
from kinoswarm_protocol.messages import RELEASE
from kinoswarm_protocol.snapshot import RECORDS_NAME, RELEASE_TABLE_NAME, SnapshotFile

_SLACK = 1_024
_MAX_RECORDS_FILE = 10_000 * MAX_RECORD_BYTES


class CopyRelease:
    """Look-up and fetching of a release over a copy; `store` keeps what arrived, so that a broken download goes on."""

    def __init__(self, site: SiteCopy, copy: CheckedCopy, store: BlobStore) -> None:
        self._site = site
        self._copy = copy
        self._store = store
        self._files: dict[BlobId, SnapshotFile] = {}

    async def look_up(self, key: str) -> list[bytes]:
        """All records of the copy: who asks checks keys anyway."""
        entry = self._copy.snapshot.file(RECORDS_NAME)
        raw = await asyncio.to_thread(self._site.read, RECORDS_NAME, _MAX_RECORDS_FILE)
        entry.check(raw)
        return decode(raw, list[bytes], _MAX_RECORDS_FILE)

    async def fetch(self, blob: BlobId, on_bytes: OnBytes) -> Path:
        """A verified blob. Raises Refused when the copy does not hold it, HashMismatch, Unreachable, LocalError."""
        if path := self._store.path_of(blob):
            return path
        if not self._files:
            await asyncio.to_thread(self._index)
        entry = self._files.get(blob)
        if entry is None:
            raise Refused(
                Code.NOT_FOUND,
                f"the copy at {self._site.base_url} holds its pages, but not the newest release's files; ask another "
                "mirror, or the coordinator",
            )
        return await asyncio.to_thread(self._bring, blob, entry)

    def _index(self) -> None:
        """Blobs by the signed tables of contents in the copy."""
        by_path = {entry.path: entry for entry in self._copy.snapshot.files}
        for path, entry in by_path.items():
            folder, _, name = path.rpartition("/")
            if name != RELEASE_TABLE_NAME:
                continue
            blob = self._blob_of(entry)
            self._files[blob] = entry
            try:
                manifest = open_envelope(self._stored(blob), RELEASE, self._copy.swarm).body
            except RemoteError:
                continue  # the download will say so: this blob is compared with the record's
            for file in manifest.files:
                if (found := by_path.get(f"{folder}/{file.path}")) is not None:
                    self._files[BlobId(file.blob)] = found

    def _stored(self, blob: BlobId) -> bytes:
        """A signed table that was brought here; empty, which no envelope is, when it is too large to be one."""
        path = self._store.path_of(blob)
        fits = path is not None and path.stat().st_size <= RELEASE.max_bytes + _SLACK
        return path.read_bytes() if path is not None and fits else b""

    def _blob_of(self, entry: SnapshotFile) -> BlobId:
        target = self._store.root / "incoming" / "of-a-copy"
        self._site.save(entry, target)
        blob = self._store.add_file(target)
        target.unlink()
        return blob

    def _bring(self, blob: BlobId, entry: SnapshotFile) -> Path:
        found = self._blob_of(entry)
        path = self._store.path_of(found)
        if found != blob or path is None:
            raise HashMismatch(
                f"{entry.path} is blob {found[:12]}…, the release names {blob[:12]}…"
            )
        return path
