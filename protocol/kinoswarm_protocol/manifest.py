"""Blob manifests: size and chunk hashes; a blob is named by the hash of its manifest. Owns the naming of blobs."""

import hashlib
from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta, Struct

from kinoswarm_protocol.codec import decode, encode
from kinoswarm_protocol.errors import HashMismatch, MalformedBytes
from kinoswarm_protocol.ids import BlobId, sha256_hex
from kinoswarm_protocol.limits import CHUNK_BYTES, MAX_BLOB_BYTES, MAX_MANIFEST_BYTES

HASH_BYTES = 32


class BlobManifest(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a blob consists of: `size_bytes` in chunks of `chunk_bytes` (the last may be shorter)."""

    size_bytes: Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]
    chunk_bytes: Annotated[int, Meta(ge=1, le=64 * CHUNK_BYTES)]
    chunk_hashes: Annotated[bytes, Meta(max_length=MAX_MANIFEST_BYTES)]
    """SHA-256 digests of the chunks, 32 bytes each, concatenated in order."""

    @property
    def num_chunks(self) -> int:
        return -(-self.size_bytes // self.chunk_bytes)

    def chunk_size(self, index: int) -> int:
        """Bytes in chunk `index`."""
        self._check_index(index)
        return min(self.chunk_bytes, self.size_bytes - index * self.chunk_bytes)

    def chunk_hash(self, index: int) -> bytes:
        """The SHA-256 digest that chunk `index` must have."""
        self._check_index(index)
        return self.chunk_hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]

    def verify_chunk(self, index: int, data: bytes | memoryview) -> None:
        """Raise HashMismatch unless `data` is exactly chunk `index`."""
        expected_size = self.chunk_size(index)
        if len(data) != expected_size:
            raise HashMismatch(f"chunk {index}: {len(data)} bytes, expected {expected_size}")
        if hashlib.sha256(data).digest() != self.chunk_hash(index):
            raise HashMismatch(
                f"chunk {index}: the bytes do not have the hash that the manifest names"
            )

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.num_chunks:
            raise MalformedBytes(f"chunk {index} does not exist: the blob has {self.num_chunks}")


def manifest_of(chunks: Iterable[bytes], chunk_bytes: int = CHUNK_BYTES) -> BlobManifest:
    """The manifest of a blob given as its chunks in order; every chunk but the last has `chunk_bytes` bytes."""
    size, hashes = 0, bytearray()
    for chunk in chunks:
        size += len(chunk)
        hashes += hashlib.sha256(chunk).digest()
    return BlobManifest(size, chunk_bytes, bytes(hashes))


def encode_manifest(manifest: BlobManifest) -> tuple[BlobId, bytes]:
    """The blob's id and the manifest's bytes."""
    raw = encode(manifest)
    return BlobId(sha256_hex(raw)), raw


def decode_manifest(blob: BlobId, raw: bytes) -> BlobManifest:
    """Check that `raw` is the manifest named `blob`, then decode it; raises HashMismatch or MalformedBytes."""
    if len(raw) <= MAX_MANIFEST_BYTES and sha256_hex(raw) != blob:
        raise HashMismatch(f"manifest: expected hash {blob[:12]}…, got {sha256_hex(raw)[:12]}…")
    manifest = decode(raw, BlobManifest, MAX_MANIFEST_BYTES)
    if len(manifest.chunk_hashes) != manifest.num_chunks * HASH_BYTES:
        raise MalformedBytes(
            f"manifest: {manifest.num_chunks} chunks need {manifest.num_chunks * HASH_BYTES} bytes of hashes, "
            f"got {len(manifest.chunk_hashes)}"
        )
    return manifest
