"""Prepared data folders of the tiny release's geometry, without decoding anything. Owns nothing that is tested."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
from evaluation.conftest import write_clips
from release.tiny_release import tiny_model

from kinoswarm_model.data.data_manifest import (
    MANIFEST_NAME,
    Clip,
    DataCluster,
    DataFile,
    DataManifest,
)
from kinoswarm_model.presets import TEXT_ENCODER


def write_prepared(folder: Path, kinds: Sequence[int]) -> Path:
    """A folder with one cluster for each of these kinds of clips (their brightness and captions)."""
    model = tiny_model()

    def file(name: str, kind: int, count: int, seed: int) -> DataFile:
        path = folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clips(path, kind, count, seed)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return DataFile(path.relative_to(folder).as_posix(), count, path.stat().st_size, digest)

    clusters = [
        DataCluster(
            f"kind {kind}",
            12,
            [file(f"shards/{place}", kind, 12, 2)],
            file(f"heldout/{place}", kind, 6, 1),
        )
        for place, kind in enumerate(kinds)
    ]
    clip = model.clip
    manifest = DataManifest(
        clip=Clip(clip.frames, clip.height, clip.width, clip.fps),
        text_encoder=TEXT_ENCODER,
        text_dim=model.text.dim,
        text_tokens=model.text.max_tokens,
        seed=0,
        num_sources=1,
        left_out={},
        clusters=clusters,
    )
    (folder / MANIFEST_NAME).write_bytes(msgspec.json.encode(manifest))
    return folder
