"""Blob manifests: a blob is exactly the bytes that its name says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoswarm_protocol.codec import encode
from kinoswarm_protocol.errors import HashMismatch, MalformedBytes, RemoteError
from kinoswarm_protocol.ids import BlobId, sha256_hex
from kinoswarm_protocol.manifest import (
    BlobManifest,
    decode_manifest,
    encode_manifest,
    manifest_of,
)


def chunks_of(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@given(st.binary(max_size=500), st.integers(1, 64))
def test_a_manifest_round_trips_and_verifies_each_of_its_chunks(data: bytes, size: int) -> None:
    pieces = chunks_of(data, size)
    manifest = manifest_of(pieces, size)
    blob, raw = encode_manifest(manifest)
    assert decode_manifest(blob, raw) == manifest
    assert manifest.num_chunks == len(pieces)
    for index, piece in enumerate(pieces):
        manifest.verify_chunk(index, piece)


def test_a_wrong_chunk_is_told_by_its_hash_and_a_short_one_by_its_length() -> None:
    manifest = manifest_of([b"aaaa", b"bb"], 4)
    with pytest.raises(HashMismatch, match="chunk 0: the bytes do not have the hash"):
        manifest.verify_chunk(0, b"aaab")
    with pytest.raises(HashMismatch, match="chunk 1: 1 bytes, expected 2"):
        manifest.verify_chunk(1, b"b")
    with pytest.raises(MalformedBytes, match="chunk 2 does not exist"):
        manifest.verify_chunk(2, b"")


def test_a_manifest_under_another_name_is_refused() -> None:
    _, raw = encode_manifest(manifest_of([b"data"], 4))
    with pytest.raises(HashMismatch, match="manifest: expected hash"):
        decode_manifest(BlobId("00" * 32), raw)


def test_a_manifest_with_too_few_hashes_is_refused() -> None:
    raw = encode(BlobManifest(10, 4, bytes(32)))
    with pytest.raises(MalformedBytes, match="3 chunks need 96 bytes of hashes, got 32"):
        decode_manifest(BlobId(sha256_hex(raw)), raw)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_manifest_reader(raw: bytes) -> None:
    with pytest.raises(RemoteError):
        decode_manifest(BlobId(sha256_hex(raw)), raw)
