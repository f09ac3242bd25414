"""Which captions a contact sheet shows. Owns the choice; NumPy only."""

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.evaluation.real_clips import RealClips


def spread_rows(clips: RealClips, count: int) -> list[int]:
    """Up to `count` clips that differ in meaning, clusters in turn: each is the one whose caption's embedding is
    farthest from those chosen before. Deterministic; every caption at most once.
    """
    pooled = clips.text.pooled[: clips.num_distinct].astype(np.float64)
    clusters = np.array(clips.clusters[: clips.num_distinct])
    chosen: list[int] = []
    present = sorted(set(clusters.tolist()))
    while len(chosen) < count:
        before = len(chosen)
        for k in present:
            row = _farthest(pooled, np.flatnonzero(clusters == k), chosen)
            if row is not None and len(chosen) < count:
                chosen.append(row)
        if len(chosen) == before:
            break
    return chosen


def _farthest(
    pooled: NDArray[np.float64], rows: NDArray[np.int64], chosen: list[int]
) -> int | None:
    """The row whose nearest chosen caption is least alike; None when all are chosen already."""
    if not chosen:
        return int(rows[0])
    nearest = (pooled[rows] @ pooled[chosen].T).max(axis=1)
    best = int(nearest.argmin())
    return None if nearest[best] > _SAME else int(rows[best])


_SAME = 0.999
"""Cosine of two captions above which they are the same but for rounding."""
