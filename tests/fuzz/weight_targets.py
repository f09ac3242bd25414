"""Readers of weights and clips: deltas, safetensors files, shards, resume points."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from fuzz.target import Target, from_file, scratch
from model.samples import make_shard as shard_of
from model.samples import tiny_model

from kinoswarm_model.checkpoints import (
    check_shapes,
    decode_tensors,
    encode_tensors,
    header_of,
    read_checkpoint,
)
from kinoswarm_model.data.shards import make_shard, read_shard, write_shard
from kinoswarm_model.data.text import TextBatch
from kinoswarm_model.delta import Delta, applied, decode_delta, encode_delta
from kinoswarm_model.delta_codecs import CODECS
from kinoswarm_model.resume_points import ResumePoint, ResumeStore
from kinoswarm_model.training_data import ClipSet
from kinoswarm_model.worker import read_frame
from kinoswarm_protocol.codec import frame

SHAPES: dict[str, tuple[int, ...]] = {"a": (3, 50), "b": (7,), "c": ()}
_JOB = "ab" * 32


def _weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def _deltas() -> list[bytes]:
    return [encode_delta(_weights(1), _weights(2), codec) for codec in CODECS.values()]


def _used(delta: Delta) -> Delta:
    """What was accepted is finite when it is applied."""
    check_shapes(applied(_weights(1), delta), SHAPES, "the sum")
    return delta


def _inside(raw: bytes) -> Delta:
    """A whole zstd frame around whatever bytes."""
    return _used(decode_delta(zstandard.ZstdCompressor(level=1).compress(raw), SHAPES))


def _shard_bytes() -> list[bytes]:
    text = TextBatch(
        np.ones((2, 4, 6), np.float16), np.ones((2, 4), np.uint8), np.ones((2, 6), np.float16)
    )
    clips = np.zeros((3, 3, 2, 8, 8), dtype=np.uint8)
    path = scratch() / "sample"
    write_shard(path, make_shard(clips, ["b", "a", "b"], {"a": 0, "b": 1}, text))
    return [path.read_bytes()]


def _tiny_shards() -> list[bytes]:
    path = scratch() / "tiny"
    write_shard(path, shard_of(tiny_model(), 1, seed=0))
    return [path.read_bytes()]


def _resume_point(path: Path) -> int:
    store = ResumeStore(path.parent, _JOB)
    point = store.load()
    return -1 if point is None else point.step


def _resume_points() -> Sequence[bytes]:
    folder = scratch() / "points"
    folder.mkdir(exist_ok=True)
    ResumeStore(folder, _JOB).save(
        ResumePoint(step=3, losses=[1.0, 0.5], seconds=2.0, tensors=_weights(1))
    )
    return [path.read_bytes() for path in folder.iterdir()]


def _clip_set(path: Path) -> Any:
    return len(ClipSet.read([str(path)], tiny_model()))


WEIGHTS: dict[str, Target] = {
    "deltas": Target(lambda raw: _used(decode_delta(raw, SHAPES)), _deltas),
    "delta_insides": Target(
        _inside, lambda: [zstandard.ZstdDecompressor().decompress(raw) for raw in _deltas()]
    ),
    "safetensors_headers": Target(header_of, lambda: [encode_tensors(_weights(1))]),
    "safetensors": Target(decode_tensors, lambda: [encode_tensors(_weights(1))], encode_tensors),
    "checkpoints": Target(
        from_file("checkpoint", lambda path: read_checkpoint(path, SHAPES)),
        lambda: [encode_tensors(_weights(1))],
        encode_tensors,
    ),
    "shards": Target(from_file("shard", read_shard), _shard_bytes),
    "clip_sets": Target(from_file("clips", _clip_set), _tiny_shards, max_bytes=65_536),
    "resume_points": Target(from_file("resume-0.bin", _resume_point), _resume_points),
    "worker_frames": Target(
        lambda raw: read_frame(io.BytesIO(raw), 2_048), lambda: [frame(b"job")]
    ),
}
