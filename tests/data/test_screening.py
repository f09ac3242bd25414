"""What is left out as static or as a duplicate, and what must not be."""

import numpy as np
from data.tiny_videos import striped

from kinoswarm_model.data.screening import DUPLICATE, STATIC, Screen, is_static


def noisy(clip: np.ndarray, levels: int, seed: int) -> np.ndarray:
    """As another compression would change it."""
    noise = np.random.default_rng(seed).integers(-levels, levels + 1, clip.shape)
    return np.clip(clip.astype(int) + noise, 0, 255).astype(np.uint8)


def textured(seed: int, height: int = 32, width: int = 48) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wall = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    wall = wall.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    return np.stack([np.roll(wall, t, axis=1) for t in range(8)])


def test_a_still_picture_is_static_and_a_single_frame_is_not() -> None:
    still = textured(1)[:1].repeat(8, axis=0)
    assert is_static(still)
    assert is_static(noisy(still, 1, 0))
    assert not is_static(textured(1))
    assert not is_static(still[:1])
    assert Screen().reason_against(still) == STATIC


def test_a_re_encoded_copy_is_a_duplicate_and_other_clips_are_not() -> None:
    screen = Screen()
    clips = [textured(seed) for seed in range(40)]
    assert [screen.reason_against(clip) for clip in clips] == [None] * 40
    assert screen.reason_against(clips[7]) == DUPLICATE
    assert screen.reason_against(noisy(clips[9], 3, 1)) == DUPLICATE


def test_equal_shapes_in_another_colour_or_another_motion_are_no_duplicates() -> None:
    screen = Screen()
    assert screen.reason_against(striped((220, 20, 20))) is None
    assert screen.reason_against(striped((20, 20, 220))) is None
    assert screen.reason_against(striped((220, 20, 20), start=12)) is None
    assert screen.reason_against(textured(3)) is None
    assert screen.reason_against(textured(3)[::-1]) is None


def test_clips_that_do_not_divide_into_cells_are_compared_too() -> None:
    screen = Screen()
    clip = textured(5, height=29, width=45)
    assert screen.reason_against(clip) is None
    assert screen.reason_against(clip) == DUPLICATE
