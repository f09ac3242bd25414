"""Motion in pixels a frame, and the probe that reads captions back, on clips whose truth is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from kinoswarm_model.evaluation.optical_flow import grid_flow, motion_features, motion_magnitude
from kinoswarm_model.evaluation.probe import fit_probe
from kinoswarm_protocol.errors import LocalError


def _panning(right: float, down: float, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth texture that moves by so many pixels a frame: (1, 6, 24, 32, 3)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:24, 0:32].astype(float)
    waves = rng.uniform(-0.5, 0.5, (6, 2)), rng.uniform(0, 6.3, 6)
    frames = [
        sum(
            np.cos(fy * (rows - down * t) + fx * (columns - right * t) + phase)
            for (fy, fx), phase in zip(*waves, strict=True)
        )
        for t in range(6)
    ]
    grey = 127 + 120 * np.stack(frames) / 6
    return np.repeat(grey[None, ..., None], 3, axis=-1).astype(np.uint8)


@pytest.mark.parametrize(("right", "down"), [(0.8, 0.0), (-0.8, 0.0), (0.0, 0.6), (0.5, -0.5)])
def test_flow_of_a_panned_texture_is_its_speed(right: float, down: float) -> None:
    flow = grid_flow(np.concatenate([_panning(right, down, seed) for seed in range(4)]))
    assert flow.shape == (4, 5, 4, 4, 2)
    np.testing.assert_allclose(np.median(flow, axis=(0, 1, 2, 3)), (right, down), atol=0.15)


def test_a_still_clip_does_not_move_and_a_faster_one_moves_more() -> None:
    speeds = [motion_magnitude(grid_flow(_panning(right, 0.0)))[0] for right in (0.0, 0.4, 0.9)]
    assert speeds[0] == pytest.approx(0.0, abs=1e-6)
    assert speeds[0] < speeds[1] < speeds[2]


def test_clips_of_one_frame_have_no_motion_to_measure() -> None:
    with pytest.raises(LocalError, match="motion needs 2 frames"):
        grid_flow(np.zeros((2, 1, 24, 32, 3), np.uint8))


def test_probe_fitted_on_real_pans_reads_the_direction_of_others() -> None:
    def features(seeds: range) -> tuple[NDArray[np.float64], list[int]]:
        speeds = (-0.7, 0.7)
        clips = [_panning(right, 0.0, seed) for seed in seeds for right in speeds]
        return motion_features(grid_flow(np.concatenate(clips))), [0, 1] * len(seeds)

    probe = fit_probe(*features(range(12)))
    unseen, wanted = features(range(12, 20))
    assert probe.agreement(unseen, wanted) > 0.9
    assert probe.agreement(unseen, [1 - label for label in wanted]) < 0.1


def test_probe_tells_many_labels_apart_and_says_which() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 200) * 10
    features = np.eye(50)[labels] + 0.05 * rng.standard_normal((200, 50))
    probe = fit_probe(features, labels)
    assert set(probe.read(features).tolist()) == {0, 10, 20, 30, 40}
    assert probe.agreement(features, labels) == 1.0


def test_probe_needs_two_labels() -> None:
    with pytest.raises(LocalError, match="have 1"):
        fit_probe(np.zeros((4, 3)), [1, 1, 1, 1])
