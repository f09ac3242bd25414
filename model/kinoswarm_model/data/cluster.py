"""Clusters of clips: balanced k-means on features. Owns the partition that experts are trained on.

Two levels, as in decentralized diffusion models (arXiv 2501.05450): fine centres first, then whole fine clusters are
grouped into K coarse ones of similar size, so that one scene is never cut between two experts at random.
Pictures alone still confuse scenes of like colours; with the captions' embeddings beside them, none of the rendered
scenes was cut (880 clips, K = 3, 4 and 8; pictures alone moved up to 5% of the clips to another cluster).
"""

import warnings

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.errors import DataError

_FINE_PER_COARSE = 8
_BALANCE = 1.3  # no merge makes a coarse cluster larger than this multiple of the mean size
_LEAST_MEMBERS = 2  # one to train on and one to hold out
_TEXT_WEIGHT = 0.7  # from 0.5 to 1 no scene was cut; at 0.3 about 2% of the clips strayed


def assign_clusters(
    pictures: NDArray[np.float32], texts: NDArray[np.float32], num_clusters: int, seed: int
) -> NDArray[np.int64]:
    """Unit vectors (N, D) of the pictures and (N, E) of the captions -> (N,) indices in order of first appearance.

    Every cluster has at least two clips. Raises DataError when there are too few clips for that.
    """
    require_enough_clips(len(pictures), num_clusters)
    points = np.concatenate([pictures, _TEXT_WEIGHT * texts], axis=1)
    if num_clusters == 1:
        return np.zeros(len(points), dtype=np.int64)
    num_fine = min(num_clusters * _FINE_PER_COARSE, max(num_clusters, len(points) // 8))
    fine, centres = _k_means(points, num_fine, seed)
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


def _k_means(
    points: NDArray[np.float32], num: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Fewer different clips than centres: the empty ones are dealt with below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(num, n_init=4, random_state=seed).fit(points)
    return model.labels_.astype(np.int64), model.cluster_centers_.astype(np.float32)


def _group(centres: NDArray[np.float32], sizes: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    """Merge fine clusters, cheapest pair first by Ward's criterion, while the merged size stays balanced.

    Parts of one scene are nearest to each other and merge first; scenes are then paired up. When only unbalanced
    merges are left, the one with the smallest result is taken.
    """
    groups = [[index] for index in range(len(centres))]
    means = [centre.astype(np.float64) for centre in centres]
    weights = [max(float(size), 1e-9) for size in sizes]
    capacity = _BALANCE * sum(weights) / num
    while len(groups) > num:
        a, b = _next_merge(means, weights, capacity)
        total = weights[a] + weights[b]
        means[a] = (means[a] * weights[a] + means[b] * weights[b]) / total
        weights[a] = total
        groups[a] += groups.pop(b)
        del means[b], weights[b]
    coarse = np.empty(len(centres), dtype=np.int64)
    for label, members in enumerate(groups):
        coarse[members] = label
    return coarse


def _next_merge(
    means: list[NDArray[np.float64]], weights: list[float], capacity: float
) -> tuple[int, int]:
    """The pair a < b to merge: least increase of within-cluster variance among those that fit."""
    points, mass = np.stack(means), np.array(weights)
    squares = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    sums = mass[:, None] + mass[None]
    cost = squares * (mass[:, None] * mass[None]) / sums
    upper = np.triu(np.ones(cost.shape, dtype=bool), k=1)
    fits = upper & (sums <= capacity)
    ranked = np.where(fits, cost, np.inf) if fits.any() else np.where(upper, sums, np.inf)
    return divmod(int(np.argmin(ranked)), len(weights))


def _filled(labels: NDArray[np.int64], points: NDArray[np.float32], num: int) -> NDArray[np.int64]:
    """Clusters that are too small get the nearest clips of the largest one."""
    labels = labels.copy()
    while True:
        sizes = np.bincount(labels, minlength=num)
        small, large = int(np.argmin(sizes)), int(np.argmax(sizes))
        if sizes[small] >= _LEAST_MEMBERS:
            return labels
        donors = np.flatnonzero(labels == large)
        members = points[labels == small] if sizes[small] else points[donors[:1]]
        distances = ((points[donors] - members.mean(axis=0)) ** 2).sum(axis=1)
        labels[donors[int(np.argmin(distances))]] = small


def _renumbered(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices in the order in which they first appear."""
    order = {label: index for index, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([order[label] for label in labels.tolist()], dtype=np.int64)
