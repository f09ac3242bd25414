"""A contribution's weights: new minus base as blockwise int8 in one zstd frame. Owns the format and its checks.

For every tensor of the model the file holds `q:<name>` (int8, the tensor's own shape) and `s:<name>` (float32, one
scale per block of 128 numbers in flat order): a number is q times its block's scale. Without memory of past rounding:
a private residual would untie the delta from the training. 8 bits keep the rounding below a hundredth of the delta.
A delta is foreign: the frame's declared size bounds decompression, the header is compared with the model's tensors
before any is read, and each refusal has a wire code.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from kinoswarm_protocol.errors import LimitExceeded, LocalError, MalformedBytes
from kinoswarm_protocol.limits import MAX_DELTA_RAW_BYTES, MAX_SAFETENSORS_HEADER

BLOCK = 128
_LEVELS = 127
_ZSTD_LEVEL = 3
_MAX_WINDOW_BYTES = 8 * 1024 * 1024
"""Bounds the decompressor's memory; level 3 never asks for more."""


@dataclass(frozen=True)
class Delta:
    """Checked, still packed: tensors are unpacked one at a time."""

    packed: Mapping[str, Tensor]
    shapes: Shapes

    def tensor(self, name: str) -> Tensor:
        """One tensor of the delta, float32, in its own shape."""
        return _unpacked(self.packed[f"q:{name}"], self.packed[f"s:{name}"])

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, by name in sorted order."""
        for name in sorted(self.shapes):
            yield name, self.tensor(name)

    def norm(self) -> float:
        """L2 norm over all tensors."""
        squares = [float(tensor.double().square().sum()) for _, tensor in self.tensors()]
        return math.sqrt(math.fsum(squares))


def encode_delta(base: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> bytes:
    """Compressed bytes of new - base. Raises NotFinite when the training diverged; equal weights give equal bytes."""
    packed: dict[str, Tensor] = {}
    for name, before in base.items():
        difference = new[name].detach().cpu().float() - before.detach().cpu().float()
        if not bool(difference.isfinite().all()):
            raise NotFinite(
                f"{name} is no longer finite: the training diverged or memory is faulty"
            )
        packed[f"q:{name}"], packed[f"s:{name}"] = _packed(difference)
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_content_size=True)
    return compressor.compress(encode_tensors(packed))


def write_delta(path: Path, base: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
    """Encode and write atomically."""
    write_atomic(path, encode_delta(base, new))


def decode_delta(raw: bytes, expected: Shapes) -> Delta:
    """Check a delta against the model's tensors.

    Raises MalformedBytes, LimitExceeded (oversize), BadTensors or NotFinite; each carries its wire code.
    """
    plain = _decompressed(raw, _max_plain_bytes(expected))
    _check_header(header_of(plain), expected)
    packed = decode_tensors(plain)
    for name in expected:
        scales = packed[f"s:{name}"]
        if not bool(scales.isfinite().all()) or bool((scales < 0).any()):
            raise NotFinite(f"delta: scales of {name} are not finite numbers of at least 0")
    return Delta(packed, expected)


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


def _packed(values: Tensor) -> tuple[Tensor, Tensor]:
    blocks = _blocks(values.flatten())
    scales = blocks.abs().amax(dim=1) / _LEVELS
    levels = torch.where(scales > 0, scales, torch.ones_like(scales)).unsqueeze(1)
    q = (blocks / levels).round().clamp(-_LEVELS, _LEVELS).to(torch.int8)
    return q.flatten()[: values.numel()].reshape(values.shape), scales


def _unpacked(q: Tensor, scales: Tensor) -> Tensor:
    blocks = _blocks(q.flatten().float()) * scales.unsqueeze(1)
    return blocks.flatten()[: q.numel()].reshape(q.shape)


def _blocks(flat: Tensor) -> Tensor:
    missing = -flat.numel() % BLOCK
    return torch.nn.functional.pad(flat, (0, missing)).view(-1, BLOCK)


def _num_blocks(shape: tuple[int, ...]) -> int:
    return -(-math.prod(shape) // BLOCK)


def _max_plain_bytes(expected: Shapes) -> int:
    tensors = sum(math.prod(shape) + 4 * _num_blocks(shape) for shape in expected.values())
    return min(tensors + MAX_SAFETENSORS_HEADER, MAX_DELTA_RAW_BYTES)


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


def _check_header(found: Mapping[str, tuple[str, tuple[int, ...]]], expected: Shapes) -> None:
    wanted: dict[str, tuple[int, ...]] = {}
    for name, shape in expected.items():
        wanted[f"q:{name}"], wanted[f"s:{name}"] = shape, (_num_blocks(shape),)
    check_names({name: shape for name, (_, shape) in found.items()}, wanted, "delta")
    for name, (kind, _) in found.items():
        right = "I8" if name.startswith("q:") else "F32"
        if kind != right:
            raise BadTensors(f"delta: {name} is of type {kind}, expected {right}")
