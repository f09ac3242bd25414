"""The Fréchet distance: known values, its floor, its bias, and what the motion half sees."""

import numpy as np
import pytest
from numpy.typing import NDArray

from kinoswarm_model.evaluation.features import FeatureExtractor, VideoFeatures
from kinoswarm_model.evaluation.frechet import fit_space, frechet_distance
from kinoswarm_protocol.errors import LocalError


def gaussian(count: int, seed: int, shift: float = 0.0) -> VideoFeatures:
    """Features with a few strong directions, as real ones have."""
    generator = np.random.default_rng(seed)
    scales = np.geomspace(1.0, 0.01, 40)
    mean = generator.standard_normal((count, 40)) * scales + shift
    motion = 0.05 * generator.standard_normal((count, 40)) * scales + 0.3
    return VideoFeatures(mean, motion)


def moving_squares(count: int, seed: int) -> NDArray[np.uint8]:
    """Bright squares that slide smoothly over dark noise."""
    generator = np.random.default_rng(seed)
    clips = generator.integers(0, 40, (count, 8, 24, 24, 3), dtype=np.uint8)
    for clip in clips:
        row, column = generator.integers(0, 16, 2)
        colour = generator.integers(100, 256, 3)
        for frame in range(8):
            left = (column + 2 * frame) % 18
            clip[frame, row : row + 6, left : left + 6] = colour
    return clips


def test_the_distance_of_two_gaussians_is_the_known_one() -> None:
    generator = np.random.default_rng(0)
    a = generator.standard_normal((200_000, 2)) * [1.0, 2.0]
    b = generator.standard_normal((200_000, 2)) * [3.0, 2.0] + [4.0, 0.0]
    assert frechet_distance(a, b) == pytest.approx(16.0 + 4.0, rel=0.02)


def test_a_set_is_at_no_distance_from_itself() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 6))
    assert frechet_distance(rows, rows) == pytest.approx(0.0, abs=1e-9)


def test_equal_distributions_are_near_the_floor_and_a_shift_is_not() -> None:
    space = fit_space(gaussian(400, 1), 200)
    real = gaussian(200, 2)
    floor = space.distances(gaussian(200, 3), real)
    shifted = space.distances(gaussian(200, 4, shift=0.3), real)
    assert floor.both.value < 0.1
    assert abs(floor.both.limit) < 0.5 * floor.both.value
    assert shifted.both.value > 3 * floor.both.value


def test_the_estimate_is_biased_by_sample_size_and_the_limit_is_less_so() -> None:
    space = fit_space(gaussian(400, 1), 100)
    few = space.distances(gaussian(100, 5), gaussian(100, 6)).both
    many = space.distances(gaussian(1600, 7), gaussian(1600, 8)).both
    assert few.value > 3 * many.value
    assert abs(few.limit - many.limit) < 0.3 * (few.value - many.value)


def test_shuffled_frames_raise_the_motion_half_above_its_floor() -> None:
    extractor = FeatureExtractor(8)
    space = fit_space(extractor.extract(moving_squares(16, 1)), 16)
    real = extractor.extract(moving_squares(16, 2))
    other = moving_squares(16, 3)
    order = np.random.default_rng(0).permutation(8)
    floor = space.distances(extractor.extract(other), real)
    shuffled = space.distances(extractor.extract(np.ascontiguousarray(other[:, order])), real)
    assert shuffled.motion.value > 3 * floor.motion.value
    assert shuffled.both.value > floor.both.value


def test_the_result_says_how_many_clips_and_dimensions_it_comes_from() -> None:
    space = fit_space(gaussian(60, 1), 32)
    found = space.distances(gaussian(48, 2), gaussian(32, 3)).both
    assert (found.num_clips, found.num_real, found.dimensions) == (48, 32, 8)
    assert space.num_fitted == 60
    assert 0.5 < space.both.explained <= 1.0


def test_the_same_features_and_seed_give_the_same_result() -> None:
    space = fit_space(gaussian(60, 1), 32)
    assert space.distances(gaussian(48, 2), gaussian(32, 3), seed=5) == space.distances(
        gaussian(48, 2), gaussian(32, 3), seed=5
    )


def test_blank_clips_have_a_finite_distance() -> None:
    space = fit_space(gaussian(60, 1), 32)
    blank = VideoFeatures(np.zeros((40, 40)), np.zeros((40, 40)))
    assert np.isfinite(space.distances(blank, gaussian(40, 2)).both.value)


def test_too_few_clips_are_refused_with_their_number() -> None:
    space = fit_space(gaussian(60, 1), 32)
    with pytest.raises(LocalError, match="3 measured clips"):
        space.distances(gaussian(3, 2), gaussian(40, 3))
    with pytest.raises(LocalError, match="2 real clips for the PCA"):
        fit_space(gaussian(2, 1), 32)
