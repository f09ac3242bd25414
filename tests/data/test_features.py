"""Picture features: unit vectors that see what is in the picture, alike in any batch."""

import numpy as np
from data.tiny_videos import striped

from kinoswarm_model.data.features import FEATURE_DIM, clip_features


def clips_of(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.stack([striped(colour).transpose(3, 0, 1, 2) for colour in colours])


def test_features_are_unit_vectors_and_near_for_what_looks_alike() -> None:
    red, darker_red, blue = clip_features(clips_of((220, 20, 20), (190, 20, 20), (20, 20, 220)))
    assert red.shape == (FEATURE_DIM,)
    np.testing.assert_allclose(np.linalg.norm([red, blue], axis=1), 1.0, atol=1e-5)
    assert red @ darker_red > red @ blue


def test_features_do_not_depend_on_the_batch_and_progress_ends_at_the_end() -> None:
    colours = [(10 * i, 200 - 10 * i, 90) for i in range(11)]
    seen: list[tuple[int, int, str]] = []
    together = clip_features(clips_of(*colours), lambda *step: seen.append(step))
    alone = clip_features(clips_of(colours[10]))
    np.testing.assert_allclose(together[10], alone[0], atol=1e-4)
    assert seen[-1] == (11, 11, "extracting features")
