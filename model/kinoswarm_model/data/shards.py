"""Shard files: clips with their captions' embeddings, as safetensors. Owns the layout; torch-free and memory-mapped.

clips          uint8   (N, C, T, H, W)
caption_index  int32   (N,)             into the U distinct captions
text_tokens    float16 (U, L, D)
text_mask      uint8   (U, L)
text_pooled    float16 (U, D)
captions       uint8   (bytes,)         JSON list of the U captions
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.text import TextBatch
from kinoswarm_protocol.errors import MalformedBytes
from kinoswarm_protocol.limits import MAX_SAFETENSORS_HEADER

_DTYPES = {
    "clips": ("U8", 5),
    "caption_index": ("I32", 1),
    "text_tokens": ("F16", 3),
    "text_mask": ("U8", 2),
    "text_pooled": ("F16", 2),
    "captions": ("U8", 1),
}


@dataclass(frozen=True)
class Shard:
    """N clips and their U distinct captions."""

    clips: NDArray[np.uint8]
    caption_index: NDArray[np.int32]
    text: TextBatch
    captions: list[str]

    def __len__(self) -> int:
        return len(self.clips)


def make_shard(
    clips: NDArray[np.uint8],
    captions: Sequence[str],
    text_by_caption: dict[str, int],
    text: TextBatch,
) -> Shard:
    """A shard of these clips; `text_by_caption` says which row of `text` belongs to a caption."""
    distinct = sorted(set(captions))
    index = {caption: i for i, caption in enumerate(distinct)}
    rows = [text_by_caption[caption] for caption in distinct]
    return Shard(
        clips,
        np.array([index[caption] for caption in captions], dtype=np.int32),
        TextBatch(text.tokens[rows], text.mask[rows], text.pooled[rows]),
        distinct,
    )


def write_shard(path: Path, shard: Shard) -> None:
    """Write atomically; equal shards give equal bytes."""
    from safetensors.numpy import save

    raw = save(
        {
            "clips": np.ascontiguousarray(shard.clips),
            "caption_index": shard.caption_index,
            "text_tokens": shard.text.tokens,
            "text_mask": shard.text.mask,
            "text_pooled": shard.text.pooled,
            "captions": np.frombuffer(json.dumps(shard.captions).encode(), dtype=np.uint8),
        }
    )
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_shard(path: Path) -> Shard:
    """Read and check a shard. Raises MalformedBytes naming what is wrong; a shard may come from anywhere."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    _check_header(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise MalformedBytes(f"{path.name} is not a safetensors file: {error}") from error
    _check(path.name, tensors)
    captions = _captions(path.name, tensors["captions"])
    text = TextBatch(tensors["text_tokens"], tensors["text_mask"], tensors["text_pooled"])
    shard = Shard(tensors["clips"], tensors["caption_index"], text, captions)
    _check_indices(path.name, shard)
    return shard


def _check_header(path: Path) -> None:
    """The names, types and ranks before anything large is read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, MAX_SAFETENSORS_HEADER):
            raise MalformedBytes(f"{path.name}: header of {length} bytes in a file of {size}")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise MalformedBytes(f"{path.name}: the header is not JSON") from error
    entries = header.items() if isinstance(header, dict) else ()
    found = {
        name: (entry.get("dtype"), len(entry.get("shape", ())))
        for name, entry in entries
        if name != "__metadata__" and isinstance(entry, dict)
    }
    if found != _DTYPES:
        raise MalformedBytes(f"{path.name}: expected tensors {_DTYPES}, got {found}")


def _check(name: str, tensors: dict[str, NDArray[np.generic]]) -> None:
    clips, captions = len(tensors["clips"]), len(tensors["text_tokens"])
    if clips == 0 or tensors["caption_index"].shape != (clips,):
        raise MalformedBytes(f"{name}: {clips} clips, {len(tensors['caption_index'])} indices")
    if tensors["text_mask"].shape != tensors["text_tokens"].shape[:2]:
        raise MalformedBytes(f"{name}: text_mask does not fit text_tokens")
    if tensors["text_pooled"].shape != (captions, tensors["text_tokens"].shape[2]):
        raise MalformedBytes(f"{name}: text_pooled does not fit text_tokens")


def _captions(name: str, raw: NDArray[np.uint8]) -> list[str]:
    try:
        captions = json.loads(raw.tobytes())
    except (ValueError, RecursionError) as error:
        raise MalformedBytes(f"{name}: the captions are not JSON") from error
    if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
        raise MalformedBytes(f"{name}: the captions are not a list of texts")
    return captions


def _check_indices(name: str, shard: Shard) -> None:
    count = len(shard.captions)
    if count != len(shard.text.tokens):
        raise MalformedBytes(f"{name}: {count} captions, {len(shard.text.tokens)} embeddings")
    if shard.caption_index.min() < 0 or shard.caption_index.max() >= count:
        raise MalformedBytes(f"{name}: caption_index points outside its {count} captions")
