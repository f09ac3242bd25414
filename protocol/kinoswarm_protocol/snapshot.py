"""A copy of a swarm's public pages and data, signed as a whole. Owns the table of contents that proves each file.

A page can't vouch for itself: whoever serves a copy could change its words. The signed table can, because its signer is
a coordinator of the charter, and the charter's hash is the swarm's id.
"""

from typing import Annotated

from msgspec import Meta, Struct

from kinoswarm_protocol.charter import Charter, is_coordinator
from kinoswarm_protocol.charter_chain import open_chain
from kinoswarm_protocol.envelope import Kind, Opened, open_envelope
from kinoswarm_protocol.errors import BadSignature, HashMismatch, MalformedBytes
from kinoswarm_protocol.ids import DigestField, RelativePath, SwarmId, sha256_hex
from kinoswarm_protocol.limits import MAX_BLOB_BYTES

SNAPSHOT_NAME = "snapshot.signed"
"""The table of contents; every other file is named in it."""

CHARTER_NAME = "charter.bin"
"""The charter with its amendments (charter_chain.py)."""

INVITE_NAME = "invite.txt"
RECORDS_NAME = "records.bin"
"""The newest signed records, as a MessagePack list of envelopes: what `lookup` would answer."""

RELEASE_TABLE_NAME = "kinoswarm-release.bin"
"""A release's own signed table of contents, in the release's folder here and in a copy: where its files come from."""

_MAX_FILES = 30_000


class SnapshotFile(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One file of a copy."""

    path: RelativePath
    size_bytes: Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]
    sha256: DigestField

    def check(self, data: bytes) -> None:
        """Raise HashMismatch unless `data` is this file."""
        found = sha256_hex(data)
        if len(data) != self.size_bytes or found != self.sha256:
            raise HashMismatch(
                f"{self.path}: {len(data)} bytes with hash {found[:12]}…, signed were {self.size_bytes} bytes "
                f"with hash {self.sha256[:12]}…"
            )


class SiteSnapshot(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All files of a copy, and when they were made."""

    made_at_ms: Annotated[int, Meta(ge=0, le=2**53)]
    files: Annotated[list[SnapshotFile], Meta(min_length=1, max_length=_MAX_FILES)]

    def file(self, path: str) -> SnapshotFile:
        """The entry of a path. Raises MalformedBytes when the copy has none."""
        for entry in self.files:
            if entry.path == path:
                return entry
        raise MalformedBytes(f"the copy holds no {path}")


SNAPSHOT: Kind[SiteSnapshot] = Kind("snapshot", SiteSnapshot, 4 * 1024 * 1024)


def open_snapshot(
    raw: bytes, chain_raw: bytes, swarm: SwarmId | None = None
) -> tuple[Opened[SiteSnapshot], Charter, SwarmId]:
    """The table of contents, the charter and the swarm's id, each checked against the other.

    `swarm` is the id that the asker knows; without it the charter's own hash is taken, and who reads the result must
    compare it. Raises BadSignature, HashMismatch, MalformedBytes, LimitExceeded or VersionMismatch.
    """
    chain = open_chain(chain_raw, swarm)
    found, charter = chain.swarm, chain.charter
    opened = open_envelope(raw, SNAPSHOT, found)
    if not is_coordinator(charter, opened.signer):
        raise BadSignature(f"the copy is signed by {opened.signer}, which is no coordinator")
    paths = [entry.path.lower() for entry in opened.body.files]
    if len(set(paths)) != len(paths) or SNAPSHOT_NAME in paths:
        raise MalformedBytes("the copy's table of contents names a path twice")
    opened.body.file(CHARTER_NAME).check(chain_raw)
    return opened, charter, found
