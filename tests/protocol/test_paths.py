"""Paths that come from elsewhere: none leads out of the folder that it is meant for."""

import pytest
from protocol.samples import BLOB

from kinoswarm_model.data.data_manifest import MANIFEST_NAME, read_manifest
from kinoswarm_model.data.errors import DataError
from kinoswarm_protocol.codec import decode, encode
from kinoswarm_protocol.errors import MalformedBytes
from kinoswarm_protocol.messages import ReleaseFile

TRICKS = [
    "../up",
    "a/../../up",
    "/etc/passwd",
    "a//b",
    "a/",
    ".hidden",
    "a/.hidden",
    "a\\b",
    "C:evil",
    "model.safetensors\n",
    "a\x00b",
    "",
]


@pytest.mark.parametrize("path", TRICKS)
def test_a_release_names_no_such_path(path: str) -> None:
    raw = encode(ReleaseFile(path=path, blob=BLOB, size_bytes=1))
    with pytest.raises(MalformedBytes):
        decode(raw, ReleaseFile, 4_096)


@pytest.mark.parametrize("path", TRICKS)
def test_prepared_data_names_no_such_path(tmp_path, path: str) -> None:
    import json

    file = {"path": path, "num_clips": 1, "size_bytes": 1, "sha256": "0" * 64}
    cluster = {"label": "a", "num_clips": 1, "shards": [file], "heldout": file}
    manifest = {
        "clip": [8, 32, 32, 8],
        "text_encoder": "e",
        "text_dim": 4,
        "text_tokens": 4,
        "seed": 0,
        "num_sources": 1,
        "left_out": {},
        "clusters": [cluster],
        "fingerprint": "f",
    }
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(DataError):
        read_manifest(tmp_path)
