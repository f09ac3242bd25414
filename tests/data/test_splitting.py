"""Held-out parts: large enough, never everything, and no video on both sides where that can be helped."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kinoswarm_model.data.splitting import HeldOut, split

clips_by_video = st.lists(st.integers(1, 12), min_size=1, max_size=30).filter(lambda n: sum(n) > 1)


def split_of(counts: list[int], rule: HeldOut, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    videos = np.repeat(np.arange(len(counts)), counts)
    return split(np.arange(len(videos)), videos, rule, np.random.default_rng(seed))


@given(clips_by_video, st.floats(0.01, 0.5), st.integers(1, 40), st.integers(0, 5))
def test_every_clip_is_on_one_side_and_both_sides_have_enough(
    counts: list[int], fraction: float, least: int, seed: int
) -> None:
    rule = HeldOut(fraction=fraction, least=least)
    heldout, training = split_of(counts, rule, seed)
    assert sorted([*heldout, *training]) == list(range(sum(counts)))
    assert len(heldout) >= min(rule.wanted(sum(counts)), sum(counts) - 1)
    assert len(heldout) >= fraction * sum(counts) * 0.999 or len(training) == 1
    assert len(training) >= 1


@given(st.lists(st.integers(1, 4), min_size=12, max_size=30), st.integers(0, 5))
def test_no_video_lies_on_both_sides(counts: list[int], seed: int) -> None:
    videos = np.repeat(np.arange(len(counts)), counts)
    heldout, training = split_of(counts, HeldOut(fraction=0.1, least=1), seed)
    assert not set(videos[heldout]) & set(videos[training])


def test_one_long_video_is_cut_at_one_place() -> None:
    heldout, training = split_of([40], HeldOut(fraction=0.1, least=1))
    assert sorted(heldout) == [0, 1, 2, 3]
    assert len(training) == 36


def test_ten_per_cent_of_thirty_is_three_and_of_thirty_one_is_four() -> None:
    rule = HeldOut(fraction=0.1, least=1)
    assert [rule.wanted(30), rule.wanted(31)] == [3, 4]
    assert HeldOut(fraction=0.1, least=8).wanted(30) == 8


def test_the_choice_depends_on_the_seed() -> None:
    rule = HeldOut(fraction=0.3, least=1)
    first, second, other = (split_of([1] * 20, rule, seed)[0].tolist() for seed in (1, 1, 2))
    assert first == second
    assert first != other
