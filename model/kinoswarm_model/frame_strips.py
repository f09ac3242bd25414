"""Clips as still pictures: frames side by side. Owns this one arrangement and writing PNG files.

Shapes: T frames, H height, W width.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

_GAP = 2


def frame_strip(clip: NDArray[np.uint8], *, scale: int, background: int = 255) -> NDArray[np.uint8]:
    """(T, H, W, 3) to a picture of (H * scale, T * W * scale + gaps, 3); pixels are repeated, not smoothed."""
    big = clip.repeat(scale, axis=1).repeat(scale, axis=2)
    gap = np.full((big.shape[1], _GAP, 3), background, dtype=np.uint8)
    pieces = [piece for frame in big for piece in (frame, gap)][:-1]
    return np.concatenate(pieces, axis=1)


def write_png(path: Path, picture: "NDArray[np.uint8] | Image") -> None:
    """Write atomically; equal pictures give equal bytes."""
    from PIL import Image

    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    temporary = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("wb") as file:
        image.save(file, format="PNG", optimize=True)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
