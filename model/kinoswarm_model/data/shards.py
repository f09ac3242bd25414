"""Shard files: clips with their captions' embeddings, as safetensors. Owns the layout; torch-free and memory-mapped.

clips          uint8   (N, C, T, H, W)   of pixels, or float16 of normalised latents
caption_index  int32   (N,)             into the U distinct captions
text_tokens    float16 (U, L, D)
text_mask      uint8   (U, L)
text_pooled    float16 (U, D)
captions       uint8   (bytes,)         JSON list of the U captions
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.atomic_file import write_atomically
from kinoswarm_model.data.text import TextBatch
from kinoswarm_protocol.errors import MalformedBytes
from kinoswarm_protocol.limits import MAX_SAFETENSORS_HEADER

_MOST_TOLD = 300
"""Letters of foreign text that an error repeats."""

_DTYPES = {
    "clips": ("U8", 5),  # or F16
    "caption_index": ("I32", 1),
    "text_tokens": ("F16", 3),
    "text_mask": ("U8", 2),
    "text_pooled": ("F16", 2),
    "captions": ("U8", 1),
}


_CLIP_DTYPES: "dict[str, np.dtype[Any]]" = {
    "U8": np.dtype(np.uint8),
    "F16": np.dtype(np.float16),
}

Clips = NDArray[Any]
"""uint8 pixels, or float16 latents."""


@dataclass(frozen=True)
class Shard:
    """N clips and their U distinct captions."""

    clips: Clips
    caption_index: NDArray[np.int32]
    text: TextBatch
    captions: list[str]

    def __len__(self) -> int:
        return len(self.clips)


def make_shard(
    clips: Clips,
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
    write_atomically(path, raw)


def read_shard(path: Path) -> Shard:
    """Read and check a shard; the clips stay in the file until they are used (copy on write).

    Raises MalformedBytes naming what is wrong: a shard may come from anywhere.
    """
    from safetensors import SafetensorError, safe_open

    try:
        layout = _layout(path)
        with safe_open(path, framework="np") as file:
            small = {name: file.get_tensor(name) for name in _DTYPES if name != "clips"}
    except (SafetensorError, ValueError) as error:
        raise MalformedBytes(f"{path.name} is not a safetensors file: {error}") from error
    clips = _mapped(path, layout)
    _check(path.name, clips, small)
    captions = _captions(path.name, small["captions"])
    text = TextBatch(small["text_tokens"], small["text_mask"], small["text_pooled"])
    shard = Shard(clips, small["caption_index"], text, captions)
    _check_indices(path.name, shard)
    return shard


@dataclass(frozen=True)
class _Layout:
    """Where the clips lie in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"


def _layout(path: Path) -> _Layout:
    """Checks the names, types and ranks in the header before anything large is read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, MAX_SAFETENSORS_HEADER):
            raise MalformedBytes(f"{path.name}: header of {length} bytes in a file of {size}")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise MalformedBytes(f"{path.name}: the header is not JSON") from error
    entries = header if isinstance(header, dict) else {}
    found = {name: _kind(entry) for name, entry in entries.items() if name != "__metadata__"}
    if found not in (_DTYPES, {**_DTYPES, "clips": ("F16", 5)}):
        raise MalformedBytes(
            f"{path.name}: expected tensors {_DTYPES}, got {str(found)[:_MOST_TOLD]}"
        )
    clips = header["clips"]
    return _Layout(
        8 + length + _begin_of(clips), tuple(clips["shape"]), _CLIP_DTYPES[str(clips["dtype"])]
    )


def _kind(entry: object) -> tuple[object, int]:
    """Type and rank that a header states; rank -1 for nonsense."""
    if not isinstance(entry, dict):
        return None, -1
    shape = entry.get("shape")
    is_shape = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    return entry.get("dtype"), len(shape) if is_shape and shape is not None else -1


def _begin_of(entry: dict[str, object]) -> int:
    offsets = entry.get("data_offsets")
    if not isinstance(offsets, list) or not offsets or type(offsets[0]) is not int:
        raise ValueError(f"data_offsets {str(offsets)[:_MOST_TOLD]}")
    return offsets[0]


def _mapped(path: Path, layout: _Layout) -> Clips:
    """The clips as a mapping of the file; safetensors has checked the offsets."""
    if 0 in layout.shape:
        return np.zeros(layout.shape, dtype=layout.dtype)
    return np.memmap(path, layout.dtype, mode="c", offset=layout.offset, shape=layout.shape)


def _check(name: str, clips: Clips, small: dict[str, NDArray[np.generic]]) -> None:
    tokens, pooled = small["text_tokens"], small["text_pooled"]
    if clips.size == 0 or small["caption_index"].shape != (len(clips),):
        raise MalformedBytes(
            f"{name}: clips of shape {clips.shape}, {len(small['caption_index'])} caption indices"
        )
    if small["text_mask"].shape != tokens.shape[:2]:
        raise MalformedBytes(f"{name}: text_mask does not fit text_tokens")
    if pooled.shape != (len(tokens), tokens.shape[2]):
        raise MalformedBytes(f"{name}: text_pooled does not fit text_tokens")
    if not (np.isfinite(tokens).all() and np.isfinite(pooled).all()):
        raise MalformedBytes(f"{name}: the captions' embeddings are not finite")


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
