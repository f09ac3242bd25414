"""Clusters of clips: balanced k-means on picture features. Owns the partition that experts are trained on.

Two levels, as in decentralized diffusion models (arXiv 2501.05450): fine centres first, then whole fine clusters are
grouped into K coarse ones of similar size, so that one scene is never cut between two experts at random.
"""

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.errors import DataError

_FINE_PER_COARSE = 8
_BALANCE = 1.3  # no merge makes a coarse cluster larger than this multiple of the mean size


def assign_clusters(
    features: NDArray[np.float32], num_clusters: int, seed: int
) -> NDArray[np.int64]:
    """(N, D) unit vectors -> (N,) cluster indices, every cluster used, ordered by size of first appearance.

    Raises DataError when there are fewer clips than clusters.
    """
    if len(features) < num_clusters:
        clips = "1 clip" if len(features) == 1 else f"{len(features)} clips"
        raise DataError(
            f"{clips} cannot fill {num_clusters} clusters; add videos or ask for fewer clusters"
        )
    if num_clusters == 1:
        return np.zeros(len(features), dtype=np.int64)
    num_fine = min(num_clusters * _FINE_PER_COARSE, max(num_clusters, len(features) // 8))
    fine, centres = _k_means(features, num_fine, seed)
    coarse = _group(centres, np.bincount(fine, minlength=num_fine), num_clusters)
    return _renumbered(coarse[fine])


def _k_means(
    points: NDArray[np.float32], num: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    from sklearn.cluster import KMeans

    model = KMeans(num, n_init=4, random_state=seed).fit(points)
    return model.labels_.astype(np.int64), model.cluster_centers_.astype(np.float32)


def _group(centres: NDArray[np.float32], sizes: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    """Merge fine clusters, cheapest pair first by Ward's criterion, while the merged size stays balanced.

    Parts of one scene are nearest to each other and merge first; scenes are then paired up. When only unbalanced
    merges are left, the one with the smallest result is taken.
    """
    groups = [[index] for index in range(len(centres))]
    means = [centre.astype(np.float64) for centre in centres]
    weights = [float(size) for size in sizes]
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


def _renumbered(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices in the order in which they first appear."""
    order = {label: index for index, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([order[label] for label in labels.tolist()], dtype=np.int64)
