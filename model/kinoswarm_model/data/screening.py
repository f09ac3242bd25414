"""Clips that teach nothing: static ones, and those that were there before. Owns the two measures and their thresholds.

Shapes: T frames, H height, W width; S the side of a thumbnail.
"""

from collections import defaultdict, deque

import numpy as np
from numpy.typing import NDArray

Clip = NDArray[np.uint8]

STATIC = "static clip"
DUPLICATE = "duplicate clip"

_STATIC_LEVELS = 1.0
"""Mean change of a pixel against the first frame, of 255: a still picture that was compressed stays below; the calmest
of 960 rendered clips has 7.9."""
_SAME_LEVELS = 1.5
"""Mean difference of thumbnails, of 255: a re-encoded copy stays below; the most alike of 960 rendered clips have 2.5.
"""
_SIDE = 8
_FRAMES = 3
THUMBNAIL = (_FRAMES, _SIDE, _SIDE, 3)
_CANDIDATES = 64
"""Clips with the same outline that are compared at most: bounds the work for a folder of plain pictures."""


class Screen:
    """Decides about clips in the order in which they come; remembers a thumbnail of those it lets pass."""

    def __init__(self) -> None:
        self._thumbnails: dict[bytes, deque[NDArray[np.uint8]]] = defaultdict(
            lambda: deque(maxlen=_CANDIDATES)
        )

    def reason_against(self, clip_THWC: Clip) -> str | None:
        """Why a clip is left out; None when it is used (and remembered)."""
        if is_static(clip_THWC):
            return STATIC
        return DUPLICATE if self.has(thumbnail_of(clip_THWC)) else None

    def has(self, thumbnail: NDArray[np.uint8]) -> bool:
        """Whether a clip like this came before; remembers it when not."""
        keys = outlines_of(thumbnail)
        if any(_alike(thumbnail, other) for key in keys for other in self._thumbnails[key]):
            return True
        for key in keys:
            self._thumbnails[key].append(thumbnail)
        return False


def is_static(clip_THWC: Clip) -> bool:
    """Whether nothing moves. A single frame is a picture and never static."""
    if len(clip_THWC) == 1:
        return False
    first_HWC = clip_THWC[0].astype(np.int16)
    return all(float(np.abs(frame - first_HWC).mean()) < _STATIC_LEVELS for frame in clip_THWC[1:])


def thumbnail_of(clip_THWC: Clip) -> NDArray[np.uint8]:
    """Area averages of the first, middle and last frame, (3, S, S, 3)."""
    picks = np.linspace(0, len(clip_THWC) - 1, _FRAMES).round().astype(int)
    rows = np.linspace(0, clip_THWC.shape[1], _SIDE + 1).astype(int)[:-1]
    columns = np.linspace(0, clip_THWC.shape[2], _SIDE + 1).astype(int)[:-1]
    sums = np.add.reduceat(clip_THWC[picks].astype(np.float64), rows, axis=1)
    sums = np.add.reduceat(sums, columns, axis=2)
    heights = np.diff(np.append(rows, clip_THWC.shape[1]))
    widths = np.diff(np.append(columns, clip_THWC.shape[2]))
    areas = heights[:, None] * widths[None]
    return np.asarray((sums / areas[None, :, :, None]).round().astype(np.uint8))


def outlines_of(thumbnail: NDArray[np.uint8]) -> list[bytes]:
    """Per frame, which cells are brighter than their right neighbour: near copies share at least one of them."""
    grey = thumbnail.astype(np.int16).sum(axis=3)
    brighter = grey[:, :, :-1] > grey[:, :, 1:] + 6
    return [bytes([index]) + np.packbits(frame).tobytes() for index, frame in enumerate(brighter)]


def _alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    difference = np.abs(one.astype(np.int16) - other.astype(np.int16))
    return float(difference.mean()) < _SAME_LEVELS
