"""How clips move, in pixels a frame. Owns the optical flow estimate that motion figures are made from; NumPy only.

Lucas and Kanade's least squares (IJCAI 1981, section 4) over the cells of a coarse grid: brightness that keeps its
place gives I_x u + I_y v = -I_t. The estimate is a linear one, so pictures are shrunk first until usual motion is
about a pixel, and it falls short for faster motion; real and generated clips are measured alike.
Shapes: N clips, T frames, H height, W width, G grid rows and columns.
"""

import numpy as np
from numpy.typing import NDArray

from kinoswarm_protocol.errors import LocalError

Flow = NDArray[np.float64]

GRID = 4
_COARSE_SIDE = 16
"""Pictures are averaged down to at least so many rows and columns."""
_PIXEL_NOISE = 4.0
"""Squared grey levels: cells without texture count as still."""
_CLIPS_AT_ONCE = 256
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def grid_flow(clips_NTHWC: NDArray[np.uint8]) -> Flow:
    """Motion (right, down) in pixels a frame for each step and cell: shape (N, T - 1, G, G, 2).

    Raises LocalError for clips of one frame or smaller than the grid.
    """
    _, frames, height, width, _ = clips_NTHWC.shape
    if frames < 2 or min(height, width) < 2 * GRID:
        raise LocalError(
            f"clips of {frames} frames of {height}x{width}: motion needs 2 frames of {2 * GRID}x{2 * GRID}"
        )
    starts = range(0, len(clips_NTHWC), _CLIPS_AT_ONCE)
    return np.concatenate([_flow(clips_NTHWC[i : i + _CLIPS_AT_ONCE]) for i in starts])


def motion_magnitude(flow: Flow) -> NDArray[np.float64]:
    """Mean length of each clip's motion, in pixels a frame: shape (N,)."""
    lengths: NDArray[np.float64] = np.linalg.norm(flow, axis=-1).mean(axis=(1, 2, 3))
    return lengths


def motion_features(flow: Flow) -> NDArray[np.float64]:
    """What tells camera motions apart: each cell's mean motion over time, shape (N, 2 G G)."""
    features: Flow = flow.mean(axis=1).reshape(len(flow), -1)
    return features


def _flow(clips_NTHWC: NDArray[np.uint8]) -> Flow:
    grey_NTHW = clips_NTHWC.astype(np.float32) @ _LUMA
    factor = max(1, min(grey_NTHW.shape[2:]) // _COARSE_SIDE)
    small = _shrunk(grey_NTHW, factor)
    middle = 0.5 * (small[:, :-1] + small[:, 1:])
    down, right = np.gradient(middle, axis=(2, 3))
    over_time = np.diff(small, axis=1)
    xx, yy, xy, xt, yt = (
        _cell_means(product)
        for product in (
            right * right,
            down * down,
            right * down,
            right * over_time,
            down * over_time,
        )
    )
    xx, yy = xx + _PIXEL_NOISE, yy + _PIXEL_NOISE
    determinant = xx * yy - xy * xy
    u, v = (xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant
    motion: Flow = factor * np.stack([u, v], axis=-1).astype(np.float64)
    return motion


def _shrunk(grey_NTHW: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    clips, frames, height, width = grey_NTHW.shape
    rows, columns = height // factor, width // factor
    cut = grey_NTHW[:, :, : rows * factor, : columns * factor]
    small: NDArray[np.float32] = cut.reshape(clips, frames, rows, factor, columns, factor).mean(
        axis=(3, 5)
    )
    return small


def _cell_means(x_NTHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over GRID x GRID cells; the last cells take what does not divide."""
    rows, columns = (np.arange(GRID) * size // GRID for size in x_NTHW.shape[2:])
    sums = np.add.reduceat(np.add.reduceat(x_NTHW, rows, axis=2), columns, axis=3)
    sizes = [
        np.diff(np.append(s, n)) for s, n in zip((rows, columns), x_NTHW.shape[2:], strict=True)
    ]
    means: NDArray[np.float32] = (sums / np.outer(*sizes)).astype(np.float32)
    return means
