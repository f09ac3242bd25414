"""Clusters of clips: balanced k-means on features. Owns the partition that experts are trained on.

Two levels, as in decentralized diffusion models (arXiv 2501.05450): fine centres first, then whole fine clusters are
grouped into K coarse ones of similar size, so that one scene is never cut between two experts at random.
Pictures alone still confuse scenes of like colours; with the captions' embeddings beside them, none of the rendered
scenes was cut (880 clips, K = 3, 4 and 8; pictures alone moved up to 5% of the clips to another cluster).
"""

import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.errors import DataError

_FINE_PER_COARSE = 8
_BALANCE = 1.3  # no merge makes a coarse cluster larger than this multiple of the mean size
_LEAST_MEMBERS = 2  # one to train on and one to hold out
TEXT_WEIGHT = 0.7
"""Of a caption's unit vector beside a picture's: from 0.5 to 1 no scene was cut; at 0.3 about 2% of clips strayed."""
_FITTED_LEAST, _FITTED_PER_CENTRE = 4_096, 32
"""The centres are fitted to that many clips, evenly spread, so that memory does not grow with the data."""
_ASSIGNED_AT_ONCE = 1_024


class Points(Protocol):
    """N vectors of D numbers, float32, wherever they lie."""

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int] | NDArray[np.int64], /) -> NDArray[np.float32]:
        """(M, D) by index."""
        ...


def assign_clusters(points: Points, num_clusters: int, seed: int) -> NDArray[np.int64]:
    """The pictures' unit vectors beside the captions' -> (N,) indices in order of first appearance.

    Every cluster has at least two clips. Raises DataError when there are too few clips for that.
    """
    count = len(points)
    require_enough_clips(count, num_clusters)
    if num_clusters == 1:
        return np.zeros(count, dtype=np.int64)
    num_fine = min(num_clusters * _FINE_PER_COARSE, max(num_clusters, count // 8))
    num_fitted = min(count, max(_FITTED_LEAST, _FITTED_PER_CENTRE * num_fine))
    fitted = np.linspace(0, count - 1, num_fitted).round().astype(np.int64)
    centres = _k_means(points.take(fitted), num_fine, seed)
    fine = _nearest(points, centres)
    coarse = _group(centres, np.bincount(fine, minlength=num_fine), num_clusters)
    return _renumbered(_filled(coarse[fine], points, num_clusters))


def require_enough_clips(num_clips: int, num_clusters: int) -> None:
    """Raises DataError unless every cluster can have a clip to train on and one to hold out."""
    if num_clips >= _LEAST_MEMBERS * num_clusters:
        return
    clips = f"{num_clips} clip" + "s" * (num_clips != 1)
    clusters = f"{num_clusters} cluster" + "s" * (num_clusters != 1)
    raise DataError(
        f"{clips} cannot fill {clusters}: each needs at least one clip to train on and one to hold out; "
        f"add videos (at least {_LEAST_MEMBERS * num_clusters} clips)"
        + (" or ask for fewer clusters" if num_clusters > 1 else "")
    )


def _k_means(points: NDArray[np.float32], num: int, seed: int) -> NDArray[np.float32]:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Fewer different clips than centres: the empty ones are dealt with below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(num, n_init=4, random_state=seed, copy_x=False).fit(points)
    return np.asarray(model.cluster_centers_, dtype=np.float32)


def _nearest(points: Points, centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """The centre that is nearest to each point, (N,)."""
    squares = (centres**2).sum(axis=1)
    found = np.empty(len(points), dtype=np.int64)
    for start in range(0, len(points), _ASSIGNED_AT_ONCE):
        part = points.take(range(start, min(start + _ASSIGNED_AT_ONCE, len(points))))
        found[start : start + len(part)] = np.argmin(squares - 2 * part @ centres.T, axis=1)
    return found


def _group(centres: NDArray[np.float32], sizes: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    """Merge fine clusters, cheapest pair first by Ward's criterion, while the merged size stays balanced.

    Parts of one scene are nearest to each other and merge first; scenes are then paired up. When only unbalanced
    merges are left, the one with the smallest result is taken.
    """
    groups = [[index] for index in range(len(centres))]
    means = centres.astype(np.float64)
    weights = np.maximum(sizes.astype(np.float64), 1e-9)
    squares = _squared_distances(means, means)
    capacity = _BALANCE * float(weights.sum()) / num
    while len(groups) > num:
        a, b = _next_merge(squares, weights, capacity)
        total = weights[a] + weights[b]
        means[a] = (means[a] * weights[a] + means[b] * weights[b]) / total
        weights[a] = total
        groups[a] += groups.pop(b)
        means, weights = np.delete(means, b, axis=0), np.delete(weights, b)
        squares = np.delete(np.delete(squares, b, axis=0), b, axis=1)
        squares[a] = squares[:, a] = _squared_distances(means[a : a + 1], means)[0]
    coarse = np.empty(len(centres), dtype=np.int64)
    for label, members in enumerate(groups):
        coarse[members] = label
    return coarse


def _squared_distances(
    rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    products = rows @ columns.T
    found = (rows**2).sum(axis=1)[:, None] + (columns**2).sum(axis=1)[None] - 2 * products
    return np.asarray(np.maximum(found, 0.0))


def _next_merge(
    squares: NDArray[np.float64], mass: NDArray[np.float64], capacity: float
) -> tuple[int, int]:
    """The pair a < b to merge: least increase of within-cluster variance among those that fit."""
    sums = mass[:, None] + mass[None]
    cost = squares * (mass[:, None] * mass[None]) / sums
    upper = np.triu(np.ones(cost.shape, dtype=bool), k=1)
    fits = upper & (sums <= capacity)
    ranked = np.where(fits, cost, np.inf) if fits.any() else np.where(upper, sums, np.inf)
    a, b = divmod(int(np.argmin(ranked)), len(mass))
    return a, b


def _filled(labels: NDArray[np.int64], points: Points, num: int) -> NDArray[np.int64]:
    """Clusters that are too small get the nearest clips of the largest one."""
    labels = labels.copy()
    while True:
        sizes = np.bincount(labels, minlength=num)
        small, large = int(np.argmin(sizes)), int(np.argmax(sizes))
        if sizes[small] >= _LEAST_MEMBERS:
            return labels
        donors = np.flatnonzero(labels == large)
        members = np.flatnonzero(labels == small) if sizes[small] else donors[:1]
        middle = points.take(members).mean(axis=0)
        distances = ((points.take(donors) - middle) ** 2).sum(axis=1)
        labels[donors[int(np.argmin(distances))]] = small


def _renumbered(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices in the order in which they first appear."""
    order = {label: index for index, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([order[label] for label in labels.tolist()], dtype=np.int64)
