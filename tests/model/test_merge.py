"""Merging: independent of order, clipped, trimmed, with DiLoCo's outer step."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinoswarm_model.delta import Delta, decode_delta, encode_delta
from kinoswarm_model.merge import (
    Contribution,
    OuterSettings,
    clip_scales,
    merge,
    outer_step,
    weighted_mean,
)
from kinoswarm_protocol.errors import LocalError

SHAPES = {"w": (40,), "v": (3, 3)}
BASE = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
PLAIN = OuterSettings(rate=1.0, momentum=0.0, norm_clip=0.0)


def delta_of(seed: int, scale: float = 1.0) -> Delta:
    generator = torch.Generator().manual_seed(seed)
    new = {n: scale * torch.randn(s, generator=generator) for n, s in SHAPES.items()}
    return decode_delta(encode_delta(BASE, new), SHAPES)


def contributions(count: int) -> list[Contribution]:
    return [
        Contribution(key=f"{seed:04d}", weight=1.0 + seed, delta=delta_of(seed))
        for seed in range(count)
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.randoms())
def test_result_does_not_depend_on_the_order_of_arrival(count: int, chance: random.Random) -> None:
    outer = OuterSettings(rate=0.7, momentum=0.9, norm_clip=1.2)
    entries = contributions(count)
    shuffled = chance.sample(entries, count)
    first, second = merge(BASE, entries, outer, None), merge(BASE, shuffled, outer, None)
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in SHAPES)
    assert first.momentum is not None
    assert second.momentum is not None
    assert all(torch.equal(first.momentum[name], second.momentum[name]) for name in SHAPES)


def test_single_contributor_is_taken_whole_without_momentum() -> None:
    outer = OuterSettings(rate=0.3, momentum=0.9, norm_clip=0.5)
    entry = contributions(1)[0]
    ones = {name: torch.ones(shape) for name, shape in SHAPES.items()}
    merged = merge(BASE, [entry], outer, ones)
    assert merged.momentum is None
    assert torch.equal(merged.weights["w"], entry.delta.tensor("w"))


def test_weights_are_shares_of_the_samples() -> None:
    entries = contributions(2)
    merged = merge(BASE, entries, PLAIN, None)
    wanted = entries[0].delta.tensor("w") / 3 + 2 * entries[1].delta.tensor("w") / 3
    torch.testing.assert_close(merged.weights["w"], wanted)


def test_a_giant_is_clipped_to_a_multiple_of_the_median() -> None:
    assert clip_scales([1.0, 1.0, 10.0], 2.0) == [1.0, 1.0, 0.2]
    assert clip_scales([1.0, 1.0, 10.0], 0.0) == [1.0, 1.0, 1.0]
    assert clip_scales([0.0, 0.0, 5.0], 2.0) == [1.0, 1.0, 1.0]


def test_extremes_are_trimmed_from_five_contributors_up() -> None:
    equal = torch.full((5,), 0.2, dtype=torch.float64)
    values = torch.tensor([[1.0], [1.0], [1.0], [1.0], [1000.0]], dtype=torch.float64)
    assert float(weighted_mean(values, equal)) == pytest.approx(1.0)
    assert float(weighted_mean(values[1:], equal[1:] / 0.8)) == pytest.approx(250.75)


def test_outer_step_is_nesterov() -> None:
    outer = OuterSettings(rate=0.5, momentum=0.9, norm_clip=0.0)
    d = torch.tensor([1.0], dtype=torch.float64)
    step, momentum = outer_step(d, None, outer)
    assert float(step) == pytest.approx(0.5 * 1.9)
    step, momentum = outer_step(d, momentum.double(), outer)
    assert float(momentum) == pytest.approx(1.9)
    assert float(step) == pytest.approx(0.5 * (1 + 0.9 * 1.9))


@pytest.mark.parametrize("count", [1, 3])
def test_staleness_shortens_the_step(count: int) -> None:
    """A merge of nothing but stale work: as a share among others alone, its decay would cancel."""
    fresh = merge(BASE, contributions(count), PLAIN, None)
    stale = merge(BASE, contributions(count), replace(PLAIN, freshness=0.5), None)
    for name in SHAPES:
        torch.testing.assert_close(stale.weights[name], 0.5 * fresh.weights[name])


def test_merging_nothing_says_so() -> None:
    with pytest.raises(LocalError, match="at least one"):
        merge(BASE, [], PLAIN, None)
