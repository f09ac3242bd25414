"""A contribution's weights: new minus base, packed into few bits in one zstd frame. Owns the file and its checks.

The file is a safetensors file of U8 parts, each the blocks of all tensors one after another, tensors by name and padded
to whole blocks: `<codec>/scales`, what delta_codecs.py packs, and `<codec>/largest`, a float32 for every tensor. Names
and shapes are not in it: both sides know the model. Without memory of past rounding by default: a private residual
unties the delta from the training (`with_residual` is there to measure what it would be worth).
A delta is foreign: the frame's declared size bounds decompression, the codec must be one that we have, the header is
compared with the model before anything is read, and each refusal has a wire code.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import zstandard
from torch import Tensor

from kinoswarm_model.checkpoints import (
    BadTensors,
    NotFinite,
    Shapes,
    check_names,
    decode_tensors,
    encode_tensors,
    header_of,
    write_atomic,
)
from kinoswarm_model.delta_codecs import (
    CODECS,
    INT8,
    SCALES,
    Codec,
    Parts,
    codec_of,
    ratios_of,
    scale_codes,
)
from kinoswarm_protocol.errors import LimitExceeded, LocalError, MalformedBytes
from kinoswarm_protocol.limits import KIB, MAX_DELTA_RAW_BYTES

_ZSTD_LEVEL = 1
"""Entropy coding is all that packed levels can gain; higher levels look for repetitions that are not there."""
_MAX_WINDOW_BYTES = 8 * 1024 * 1024
"""Bounds the decompressor's memory; level 1 never asks for more."""
_MAX_HEADER_BYTES = 4 * KIB
"""At most four tensors are named in it."""
_NUMBERS_AT_ONCE = 2**18
"""1 MiB of float32: what is worked on stays in the processor's cache."""


@dataclass(frozen=True)
class Delta:
    """Checked, still packed: tensors are unpacked one at a time."""

    codec: Codec
    parts: Parts
    """(N, width) U8 by part, over the blocks of all tensors."""
    codes_N: Tensor
    largest: Mapping[str, float]
    shapes: Shapes

    @cached_property
    def _first_block(self) -> dict[str, int]:
        return _first_blocks(self.shapes, self.codec)

    def tensor(self, name: str) -> Tensor:
        """One tensor of the delta, float32, in its own shape."""
        shape = self.shapes[name]
        first, count = self._first_block[name], _num_blocks(shape, self.codec)
        at_once = _NUMBERS_AT_ONCE // self.codec.block
        pieces = [
            self._ratios(slice(start, min(start + at_once, first + count)))
            for start in range(first, first + count, at_once)
        ]
        flat = torch.cat(pieces) if pieces else torch.zeros(0)
        return flat.mul_(self.largest[name])[: math.prod(shape)].reshape(shape)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, by name in sorted order."""
        for name in sorted(self.shapes):
            yield name, self.tensor(name)

    def norm(self) -> float:
        """L2 norm over all tensors."""
        squares = [float(tensor.double().square().sum()) for _, tensor in self.tensors()]
        return math.sqrt(math.fsum(squares))

    def _ratios(self, blocks: slice) -> Tensor:
        ratios_NB = self.codec.unpack({name: part[blocks] for name, part in self.parts.items()})
        return ratios_NB.mul_(SCALES[self.codes_N[blocks].long()][:, None]).flatten()


def encode_delta(
    base: Mapping[str, Tensor], new: Mapping[str, Tensor], codec: Codec = INT8
) -> bytes:
    """Compressed bytes of new - base. Raises NotFinite when the training diverged; equal weights give equal bytes."""
    return encode_difference(
        {
            name: new[name].detach().cpu().float() - before.detach().cpu().float()
            for name, before in base.items()
        },
        codec,
    )


def encode_difference(difference: Mapping[str, Tensor], codec: Codec) -> bytes:
    """Compressed bytes of a difference of weights, float32 tensors by name. Raises NotFinite."""
    pieces: dict[str, list[Tensor]] = {name: [] for name in ("scales", *codec.widths)}
    largest = []
    for name in sorted(difference):
        largest.append(_largest(name, difference[name]))
        for blocks_NB in _blocks(difference[name].flatten(), codec):
            codes_N = scale_codes(blocks_NB, largest[-1])
            pieces["scales"].append(codes_N)
            packed = codec.pack(ratios_of(blocks_NB, codes_N, largest[-1]))
            for part, piece in packed.items():
                pieces[part].append(piece)
    tensors = {f"{codec.name}/{part}": torch.cat(found) for part, found in pieces.items()}
    tensors[f"{codec.name}/largest"] = torch.tensor(largest, dtype=torch.float32)
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_content_size=True)
    return compressor.compress(encode_tensors(tensors))


def with_residual(
    difference: Mapping[str, Tensor], residual: Mapping[str, Tensor], codec: Codec
) -> tuple[bytes, dict[str, Tensor]]:
    """Error feedback (arXiv 1901.09847): encode difference + residual; returns the bytes and what they leave out."""
    wanted = {name: difference[name] + residual[name] for name in difference}
    raw = encode_difference(wanted, codec)
    delta = decode_delta(raw, {name: tuple(tensor.shape) for name, tensor in wanted.items()})
    return raw, {name: wanted[name] - sent for name, sent in delta.tensors()}


def write_delta(
    path: Path, base: Mapping[str, Tensor], new: Mapping[str, Tensor], codec: Codec = INT8
) -> None:
    """Encode and write atomically."""
    write_atomic(path, encode_delta(base, new, codec))


def decode_delta(raw: bytes, expected: Shapes) -> Delta:
    """Check a delta against the model's tensors.

    Raises MalformedBytes, LimitExceeded (oversize), BadTensors or NotFinite; each carries its wire code.
    """
    plain = _decompressed(raw, _max_plain_bytes(expected))
    codec = _checked_codec(header_of(plain), expected)
    found = decode_tensors(plain)
    sizes = found[f"{codec.name}/largest"]
    if not bool(sizes.isfinite().all()) or bool((sizes < 0).any()):
        raise NotFinite("delta: the tensors' largest numbers are not finite and at least 0")
    delta = Delta(
        codec,
        {part: found[f"{codec.name}/{part}"] for part in codec.widths},
        found[f"{codec.name}/scales"],
        dict(zip(sorted(expected), sizes.tolist(), strict=True)),
        expected,
    )
    codec.check(delta.parts)
    return delta


def read_delta(path: Path, expected: Shapes) -> Delta:
    """Read a delta file; raises LocalError when it can't be read, else as decode_delta."""
    limit = _max_plain_bytes(expected)
    try:
        size = path.stat().st_size
        if size > limit:
            raise LimitExceeded(f"delta of {size} bytes; this model's need at most {limit}")
        raw = path.read_bytes()
    except OSError as error:
        raise LocalError(f"can't read delta {path}: {error}") from error
    return decode_delta(raw, expected)


def applied(base: Mapping[str, Tensor], delta: Delta) -> dict[str, Tensor]:
    """base + delta."""
    return {name: base[name] + tensor for name, tensor in delta.tensors()}


def _largest(name: str, difference: Tensor) -> float:
    if not difference.numel():
        return 0.0
    low, high = difference.aminmax()
    largest = max(float(high), -float(low))
    if not math.isfinite(largest):
        raise NotFinite(f"{name} is no longer finite: the training diverged or memory is faulty")
    return largest


def _blocks(flat: Tensor, codec: Codec) -> Iterator[Tensor]:
    """The numbers as (N, B), a piece that fits the cache at a time; the last block is filled with zeros."""
    for piece in torch.split(flat, _NUMBERS_AT_ONCE):
        missing = -piece.numel() % codec.block
        yield torch.nn.functional.pad(piece, (0, missing)).view(-1, codec.block)


def _num_blocks(shape: tuple[int, ...], codec: Codec) -> int:
    return -(-math.prod(shape) // codec.block)


def _first_blocks(shapes: Shapes, codec: Codec) -> dict[str, int]:
    first, total = {}, 0
    for name in sorted(shapes):
        first[name] = total
        total += _num_blocks(shapes[name], codec)
    return first


def _max_plain_bytes(expected: Shapes) -> int:
    """What the largest codec needs."""
    needed = max(
        sum(_num_blocks(shape, codec) for shape in expected.values())
        * (1 + sum(codec.widths.values()))
        for codec in CODECS.values()
    )
    return min(needed + 4 * len(expected) + _MAX_HEADER_BYTES, MAX_DELTA_RAW_BYTES)


def _decompressed(raw: bytes, limit: int) -> bytes:
    try:
        frame = zstandard.get_frame_parameters(raw)
    except zstandard.ZstdError as error:
        raise MalformedBytes(f"delta is not a zstd frame: {error}") from error
    if frame.content_size in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
        raise MalformedBytes("delta does not declare its size")
    if frame.content_size > limit or frame.window_size > max(_MAX_WINDOW_BYTES, limit):
        raise LimitExceeded(f"delta declares {frame.content_size} bytes; this model needs {limit}")
    try:
        decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
        return decompressor.decompress(raw, max_output_size=limit, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError, MemoryError) as error:
        raise MalformedBytes(f"delta does not decompress: {error}") from error


def _checked_codec(found: Mapping[str, tuple[str, tuple[int, ...]]], expected: Shapes) -> Codec:
    """The codec that the tensors' names state, once names, shapes and types are those it gives for this model."""
    codec = codec_of(min(found, default="").partition("/")[0])
    count = sum(_num_blocks(shape, codec) for shape in expected.values())
    wanted: dict[str, tuple[int, ...]] = {
        f"{codec.name}/{part}": (count, width) for part, width in codec.widths.items()
    }
    wanted |= {f"{codec.name}/scales": (count,), f"{codec.name}/largest": (len(expected),)}
    check_names({name: shape for name, (_, shape) in found.items()}, wanted, "delta")
    for name, (kind, _) in found.items():
        right = "F32" if name.endswith("/largest") else "U8"
        if kind != right:
            raise BadTensors(f"delta: {name} is of type {kind}, expected {right}")
    return codec
