"""The Fréchet distance between two sets of video features. Owns the metric and its statistics; NumPy only.

Three traps are met here. Half of the features describes motion, because averages over frames are blind to their order.
The estimate is biased upwards by the sample sizes: features are reduced by a PCA that is fitted on separate real clips,
a real-against-real floor is measured alike, and the limit of many samples is extrapolated (arXiv 1911.07023). The unit
is the total variance of those separate real clips: 0 is equal, and a blank clip against varied ones is about 1.
"""

from dataclasses import dataclass

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kinoswarm_model.evaluation.features import VideoFeatures
from kinoswarm_protocol.errors import LocalError

METRIC = "Fréchet distance on TransNetV2 features"
UNIT = "total variance of the features of separate real clips"
MAX_DIMENSIONS = 128
_CLIPS_PER_DIMENSION = 4
"""A covariance from fewer clips a dimension is mostly sampling error."""

SMALLEST_SET = 2 * _CLIPS_PER_DIMENSION
_POINTS = 8
_SMALLEST_FRACTION = 0.4
_DRAWS_PER_POINT = 12

Matrix = NDArray[np.float64]


class Distance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One Fréchet distance, at its sample sizes and in the limit of many samples."""

    value: float
    limit: float
    """Intercept of a line through the distances of smaller subsets over 1 / size; may be a little below 0."""
    limit_error: float
    """Standard error of that intercept from the scatter about the line; subsets overlap, so it is a lower bound."""
    num_clips: int
    num_real: int
    dimensions: int


class Distances(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Distance of a set of clips from real ones."""

    both: Distance
    """Both halves, with equal weight."""
    motion: Distance
    """The temporal half alone: how things move."""


@dataclass(frozen=True)
class Projection:
    """A PCA: y = (x - centre) @ axes, scaled so that the clips it was fitted on have total variance 1 before it."""

    centre: Matrix
    axes: Matrix
    """(D, dimensions)"""
    explained: float
    """Share of the total variance that the kept axes hold."""

    def __call__(self, features_BD: Matrix) -> Matrix:
        projected: Matrix = (features_BD - self.centre) @ self.axes
        return projected


@dataclass(frozen=True)
class FrechetSpace:
    """Where distances are measured: fitted once on real clips that take no other part."""

    both: Projection
    motion: Projection
    num_fitted: int

    def distances(self, clips: VideoFeatures, real: VideoFeatures, seed: int = 0) -> Distances:
        """How far clips are from real ones; `seed` draws the subsets of the extrapolation.

        Raises LocalError when either set is too small to say anything.
        """
        for features, name in ((clips, "measured"), (real, "real")):
            if len(features) < SMALLEST_SET:
                raise LocalError(
                    f"{len(features)} {name} clips; at least {SMALLEST_SET} are needed for a distance"
                )
        # Hundreds of small matrices: where other programs want the cores too, BLAS threads mostly wait for each other.
        with threadpool_limits(1, user_api="blas"):
            return Distances(
                both=_distance(self.both(_joined(clips)), self.both(_joined(real)), seed),
                motion=_distance(self.motion(clips.motion), self.motion(real.motion), seed),
            )


def fit_space(real: VideoFeatures, num_measured: int) -> FrechetSpace:
    """PCAs for sets of at least `num_measured` clips, fitted on separate real clips.

    Halves are weighted by their total variance first: motion's numbers are small, but count as much.
    """
    if len(real) < SMALLEST_SET:
        raise LocalError(f"{len(real)} real clips for the PCA; at least {SMALLEST_SET} are needed")
    smallest = min(len(real), num_measured)
    dimensions = max(2, min(MAX_DIMENSIONS, smallest // _CLIPS_PER_DIMENSION))
    weights = np.concatenate([_weight(real.mean), _weight(real.motion)]) / np.sqrt(2.0)
    return FrechetSpace(
        both=_fit(_joined(real), weights, dimensions),
        motion=_fit(real.motion, _weight(real.motion), dimensions),
        num_fitted=len(real),
    )


def frechet_distance(a_BD: Matrix, b_BD: Matrix) -> float:
    """|mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of two samples (Dowson and Landau, 1982)."""
    gap_D = a_BD.mean(axis=0) - b_BD.mean(axis=0)
    cov_a, cov_b = np.cov(a_BD, rowvar=False), np.cov(b_BD, rowvar=False)
    root_a = _square_root(cov_a)
    # tr (S_a S_b)^(1/2) equals the sum of roots of the eigenvalues of the symmetric S_a^(1/2) S_b S_a^(1/2).
    values = np.linalg.eigvalsh(root_a @ cov_b @ root_a)
    overlap = np.sqrt(values.clip(min=0.0)).sum()
    return float(gap_D @ gap_D + np.trace(cov_a) + np.trace(cov_b) - 2.0 * overlap)


def _distance(clips_BD: Matrix, real_BD: Matrix, seed: int) -> Distance:
    limit, error = _extrapolated(clips_BD, real_BD, seed)
    return Distance(
        value=frechet_distance(clips_BD, real_BD),
        limit=limit,
        limit_error=error,
        num_clips=len(clips_BD),
        num_real=len(real_BD),
        dimensions=clips_BD.shape[1],
    )


def _extrapolated(clips_BD: Matrix, real_BD: Matrix, seed: int) -> tuple[float, float]:
    """Shrink both sets by the same fraction f: the bias grows as 1 / f, so the line's value at 1 / f = 0 has none."""
    generator = np.random.Generator(np.random.SFC64(seed))
    inverse, found = [], []
    for fraction in np.linspace(_SMALLEST_FRACTION, 1.0, _POINTS):
        sizes = [max(2, round(fraction * len(rows))) for rows in (clips_BD, real_BD)]
        values = [
            frechet_distance(
                generator.permutation(clips_BD)[: sizes[0]],
                generator.permutation(real_BD)[: sizes[1]],
            )
            for _ in range(_DRAWS_PER_POINT)
        ]
        inverse.append(len(clips_BD) / sizes[0])
        found.append(float(np.mean(values)))
    return _intercept(np.array(inverse), np.array(found))


def _intercept(x: Matrix, y: Matrix) -> tuple[float, float]:
    """Value at x = 0 of the least-squares line, with its standard error."""
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    intercept = float(y.mean() - slope * x.mean())
    residual = y - (intercept + slope * x)
    variance = float(residual @ residual) / (len(x) - 2)
    spread = 1.0 / len(x) + x.mean() ** 2 / float(centred @ centred)
    return intercept, float(np.sqrt(variance * spread))


def _fit(features_BD: Matrix, weights_D: Matrix, dimensions: int) -> Projection:
    centre = features_BD.mean(axis=0)
    centred = (features_BD - centre) * weights_D
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    kept = min(dimensions, len(singular))
    power = singular**2
    return Projection(
        centre=centre,
        axes=axes[:kept].T * weights_D[:, None],
        explained=float(power[:kept].sum() / power.sum()),
    )


def _weight(features_BD: Matrix) -> Matrix:
    """The same weight for every feature of a half, such that the half's total variance becomes 1."""
    total = float(features_BD.var(axis=0, ddof=1).sum())
    return np.full(features_BD.shape[1], 1.0 / np.sqrt(max(total, np.finfo(np.float64).tiny)))


def _joined(features: VideoFeatures) -> Matrix:
    return np.concatenate([features.mean, features.motion], axis=1)


def _square_root(symmetric: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(symmetric)
    root: Matrix = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    return root
