"""Features of all sets of an evaluation and the distances between them. Owns which set is compared with which."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.evaluation.features import FeatureExtractor, VideoFeatures
from kinoswarm_model.evaluation.frechet import Distance, Distances, fit_space
from kinoswarm_model.evaluation.report import Comparison, SampleCounts

Pixels = NDArray[np.uint8]
"""(N, T, H, W, C)"""

OnProgress = Callable[[int, int, str], None]
"""(done, of how many, what)."""


@dataclass(frozen=True, kw_only=True)
class ClipSets:
    """Clips by the part they take."""

    heldout: Pixels
    floor: Pixels
    projection: Pixels
    release: Pixels
    seed: Pixels | None


@dataclass(frozen=True)
class Measured:
    """All distances of an evaluation."""

    both: Comparison
    motion: Comparison
    counts: SampleCounts
    explained_variance: float


def measure(sets: ClipSets, seed: int, on_progress: OnProgress) -> Measured:
    """Distances of release, seed version and other real clips from the held-out ones."""
    named = {
        "the PCA's clips": sets.projection,
        "held-out clips": sets.heldout,
        "other real clips": sets.floor,
        "the release's clips": sets.release,
    }
    if sets.seed is not None:
        named["the seed version's clips"] = sets.seed
    projection, heldout, *measured = _features(named, on_progress)
    space = fit_space(projection, min(len(heldout), *(len(features) for features in measured)))
    floor, release, *versions = (space.distances(features, heldout, seed) for features in measured)
    from_seed = versions[0] if versions else None
    return Measured(
        both=_comparison(release, from_seed, floor, lambda found: found.both),
        motion=_comparison(release, from_seed, floor, lambda found: found.motion),
        counts=SampleCounts(
            generated=len(sets.release),
            heldout=len(sets.heldout),
            floor=len(sets.floor),
            projection=len(sets.projection),
        ),
        explained_variance=space.both.explained,
    )


def _features(sets: dict[str, Pixels], on_progress: OnProgress) -> list[VideoFeatures]:
    total, before, found = sum(len(pixels) for pixels in sets.values()), 0, []
    extractor = FeatureExtractor(next(iter(sets.values())).shape[1])
    for name, pixels in sets.items():
        count = _counted(on_progress, before, total, f"features of {name}")
        found.append(extractor.extract(pixels, count))
        before += len(pixels)
    return found


def _counted(
    on_progress: OnProgress, before: int, total: int, what: str
) -> Callable[[int, int], None]:
    return lambda done, _: on_progress(before + done, total, what)


def _comparison(
    release: Distances,
    seed: Distances | None,
    floor: Distances,
    half: Callable[[Distances], Distance],
) -> Comparison:
    ours = half(release)
    before = half(seed) if seed is not None else None
    return Comparison(
        release=ours,
        seed=before,
        release_by_seed=ours.value / before.value if before is not None else None,
        floor=half(floor).value,
        floor_details=half(floor),
    )
