"""Random numbers that depend on names, not on order. Owns how (seed, purpose, indices) becomes noise.

Everything is drawn on the CPU. Orders, times and the sampler's noise come from NumPy, whose streams are equal on every
machine. A training batch's noise is drawn by torch, three times as fast: its last bits differ between processors'
kernels, as those of every matrix product do.
Shapes: C channels, T frames, H height, W width.
"""

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from kinoswarm_protocol.specs import ClipSpec


class Purpose(IntEnum):
    """Separates streams of one seed; numbers are part of what a seed means, so they never change."""

    TRAIN = 1
    ORDER = 2
    EVALUATE = 3
    ROUTE = 4
    SAMPLE = 5
    INIT = 6
    SELF_TEST = 7


def stream(seed: int, purpose: Purpose, *indices: int) -> np.random.Generator:
    """An independent generator for this name. `seed` and indices are whole numbers of at least 0."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, purpose, *indices])))


def clip_noise(generator: np.random.Generator, clip: ClipSpec) -> Tensor:
    """Standard normal noise of one clip, float32, shape (C, T, H, W)."""
    shape = (clip.channels, clip.frames, clip.height, clip.width)
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


def fill_with_noise(generator: np.random.Generator, out: Tensor) -> None:
    """Fill a float32 tensor with standard normal noise, quickly; one draw of `generator` seeds it."""
    chance = torch.Generator().manual_seed(int(generator.integers(2**63)))
    out.normal_(generator=chance)
