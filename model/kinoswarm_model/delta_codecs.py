"""How the numbers of a delta become few bits: int8, int4, and sparse. Owns the packing of blocks; pure, no files.

A codec sees blocks of neighbouring numbers of one tensor. Every codec shares the scales: the tensor's largest magnitude
is a float32, each block's scale one byte, an eighth of an octave a step, at or just above the block's largest
magnitude. What a codec packs are the *ratios* to that scale, from -1 to 1.

- `int8.1`: 255 levels. `int4.1`: 15 levels, two in a byte.
- `sparse.1`: the 12 largest of 256 numbers (top-k with block-local places, arXiv 2508.15706), each a gap from the one
  before (zstd gives gaps and levels the bits they deserve) and 4 bits of sign and size.

Unpacking is a sequence of single correctly rounded float32 operations on fixed constants: equal bytes give equal
numbers on every machine. Shapes: N blocks, B numbers in a block, K kept ones.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from kinoswarm_model.checkpoints import BadTensors
from kinoswarm_protocol.specs import DeltaCodec

Parts = dict[str, Tensor]
"""The U8 parts of N blocks by name, each (N, width)."""

_NO_SCALE = 255
"""Code of a block of zeros, or of one 31 octaves below its tensor's largest number."""
_EIGHTHS = [float.fromhex(h) for h in (
    "0x1.000000p+0", "0x1.d5818ep-1", "0x1.ae89fap-1", "0x1.8ace54p-1",
    "0x1.6a09e6p-1", "0x1.4bfdaep-1", "0x1.306fe0p-1", "0x1.172b84p-1",
)]  # fmt: skip
"""2^(-n/8), rounded to float32: constants, since libraries differ in the last bit of a power."""
SCALES = torch.tensor([math.ldexp(_EIGHTHS[code % 8], -(code // 8)) for code in range(256)])
SCALES[_NO_SCALE] = 0.0

_SPARSE_BLOCK = 256
_SPARSE_KEPT = 12


@dataclass(frozen=True, kw_only=True)
class Codec:
    """One way to pack ratios."""

    name: DeltaCodec
    block: int
    """Numbers that share a scale."""
    widths: Mapping[str, int]
    """Bytes of one block in every part."""
    pack: Callable[[Tensor], Parts]
    """Ratios (N, B), float32 from -1 to 1, to parts."""
    unpack: Callable[[Parts], Tensor]
    """Checked parts to ratios (N, B)."""
    check: Callable[[Parts], None] = lambda parts: None
    """Raises BadTensors for foreign parts that can't be unpacked."""


def codec_of(name: str) -> Codec:
    """The codec of this name, foreign or not. Raises BadTensors naming those that this program reads."""
    found = CODECS.get(name)
    if found is None:
        raise BadTensors(
            f"the delta is coded as {name[:40]!r}; this version reads {', '.join(CODECS)}: update it, "
            "or let the sender use one of these"
        )
    return found


def scale_codes(blocks_NB: Tensor, largest: float) -> Tensor:
    """The scale of every block as a code, (N,) U8: the smallest scale that is not below the block's largest number."""
    if largest == 0.0:
        return torch.full((len(blocks_NB),), _NO_SCALE, dtype=torch.uint8)
    low_N, high_N = blocks_NB.aminmax(dim=1)
    share_N = torch.maximum(high_N, -low_N).double() / largest
    codes_N = (-8.0 * share_N.log2()).floor().clamp(0, _NO_SCALE)
    return codes_N.to(torch.uint8)


def ratios_of(blocks_NB: Tensor, codes_N: Tensor, largest: float) -> Tensor:
    """blocks / scale, clamped to [-1, 1]; a block without a scale gives zeros."""
    scales_N = SCALES[codes_N.long()].double() * largest
    inverse_N = torch.where(scales_N > 0, 1.0 / scales_N, torch.zeros_like(scales_N))
    finite_N = inverse_N.clamp(max=torch.finfo(torch.float32).max).float()
    return (blocks_NB * finite_N[:, None]).clamp_(-1.0, 1.0)


def _pack_int8(ratios_NB: Tensor) -> Parts:
    return {"levels": (ratios_NB * 127.0 + 127.0).round_().to(torch.uint8)}


def _unpack_int8(parts: Parts) -> Tensor:
    return (parts["levels"].float() - 127.0).div_(127.0).clamp_(max=1.0)


def _pack_int4(ratios_NB: Tensor) -> Parts:
    return {"levels": _nibbles((ratios_NB * 7.0 + 7.0).round_().to(torch.uint8))}


def _unpack_int4(parts: Parts) -> Tensor:
    return (_from_nibbles(parts["levels"]).float() - 7.0).div_(7.0).clamp_(max=1.0)


def _pack_sparse(ratios_NB: Tensor) -> Parts:
    places_NK = _largest_places(ratios_NB)
    kept_NK = ratios_NB.gather(1, places_NK)
    before_NK = torch.nn.functional.pad(places_NK[:, :-1], (1, 0), value=-1)
    sizes_NK = (kept_NK.abs() * 7.0).round_().to(torch.uint8)
    signs_NK = (kept_NK < 0).to(torch.uint8) << 3
    gaps_NK = (places_NK - before_NK - 1).to(torch.uint8)
    return {"gaps": gaps_NK, "levels": _nibbles(sizes_NK | signs_NK)}


def _largest_places(ratios_NB: Tensor) -> Tensor:
    """Places of the K largest numbers of each block, ascending, (N, K).

    Non-negative floats order as their bits do; a place in the low byte makes them its own key, so that numpy's
    partition finds the places in a quarter of the time of a top-k. It costs the last 8 of 24 bits of precision.
    """
    keys_NB = ratios_NB.abs().view(torch.int32).numpy() & -_SPARSE_BLOCK
    keys_NB |= np.arange(_SPARSE_BLOCK, dtype=np.int32)
    keys_NB.partition(_SPARSE_BLOCK - _SPARSE_KEPT, axis=1)
    places_NK = (keys_NB[:, -_SPARSE_KEPT:] & (_SPARSE_BLOCK - 1)).astype(np.uint8)
    places_NK.sort(axis=1)
    return torch.from_numpy(places_NK).long()


def _unpack_sparse(parts: Parts) -> Tensor:
    places_NK = (parts["gaps"].to(torch.int64) + 1).cumsum_(dim=1) - 1
    levels_NK = _from_nibbles(parts["levels"])
    values_NK = (levels_NK & 7).float().div_(7.0)
    values_NK = torch.where((levels_NK & 8).bool(), -values_NK, values_NK)
    ratios_NB = torch.zeros(len(places_NK), _SPARSE_BLOCK)
    return ratios_NB.scatter_(1, places_NK, values_NK)


def _check_sparse(parts: Parts) -> None:
    last_N = parts["gaps"].sum(dim=1, dtype=torch.int64) + _SPARSE_KEPT - 1
    if bool((last_N >= _SPARSE_BLOCK).any()):
        raise BadTensors("delta: a place lies outside its block; encode it again")


def _nibbles(levels_NB: Tensor) -> Tensor:
    """Two levels below 16 in a byte: the first half of a block low, the second high, so that both stay contiguous."""
    half = levels_NB.shape[1] // 2
    return levels_NB[:, :half] | (levels_NB[:, half:] << 4)


def _from_nibbles(packed_NW: Tensor) -> Tensor:
    return torch.cat([packed_NW & 15, packed_NW >> 4], dim=1)


INT8 = Codec(name="int8.1", block=128, widths={"levels": 128}, pack=_pack_int8, unpack=_unpack_int8)
INT4 = Codec(name="int4.1", block=64, widths={"levels": 32}, pack=_pack_int4, unpack=_unpack_int4)
SPARSE = Codec(
    name="sparse.1",
    block=_SPARSE_BLOCK,
    widths={"gaps": _SPARSE_KEPT, "levels": _SPARSE_KEPT // 2},
    pack=_pack_sparse,
    unpack=_unpack_sparse,
    check=_check_sparse,
)
CODECS: Mapping[str, Codec] = {codec.name: codec for codec in (INT8, INT4, SPARSE)}
if set(CODECS) != set(get_args(DeltaCodec)):
    raise AssertionError("the charter's codecs and those that exist must be the same")
