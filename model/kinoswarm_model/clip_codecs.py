"""From what experts see to pixels. Owns rounding to bytes; decoders of latents are vae.py's.

Shapes: B clips, C channels, T frames, H height, W width.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Decode = Callable[[Tensor], NDArray[np.uint8]]
"""(x_BCTHW as the sampler gives it) -> bytes of shape (B, T, H, W, 3)."""


def pixels_of(x_BCTHW: Tensor) -> NDArray[np.uint8]:
    """Bytes of shape (B, T, H, W, C) from numbers around -1..1, the inverse of x = u8 / 127.5 - 1."""
    bytes_BCTHW = ((x_BCTHW.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    pixels: NDArray[np.uint8] = bytes_BCTHW.permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()
    return pixels
