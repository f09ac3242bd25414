"""Routing and the sampler: weights, determinism, grouping, guidance, missing experts."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model.samples import text_batch, tiny_model
from torch import Tensor

from kinoswarm_model.router import build_router, router_shapes
from kinoswarm_model.routing import balancing_bias, probabilities, threshold_weights, top_k_weights
from kinoswarm_model.sampler import RoutedModel, TextBatch, sample, settings_of
from kinoswarm_protocol.errors import LocalError

MODEL = tiny_model()
SETTINGS = dataclasses.replace(settings_of(MODEL.recipe), guidance=1.0)


def constant(value: float) -> "ConstantExpert":
    return ConstantExpert(value)


class ConstantExpert:
    """Predicts one grey; counts its calls."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.batches: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        self.batches.append(len(x))
        has_text = mask.any(dim=1).float().view(-1, 1, 1, 1, 1)
        return torch.full_like(x, self.value) * has_text


def by_pooled_text(x: Tensor, t: Tensor, pooled: Tensor) -> Tensor:
    """A router that reads its answer from the text."""
    return 5.0 * pooled[:, :2]


def text_for(choices: list[int]) -> TextBatch:
    text = text_batch(MODEL, len(choices))
    pooled = torch.zeros(len(choices), MODEL.text.dim)
    pooled[torch.arange(len(choices)), torch.tensor(choices)] = 1.0
    return dataclasses.replace(text, pooled_BD=pooled)


def routed(experts: list[ConstantExpert], available: list[bool] | None = None) -> RoutedModel:
    return RoutedModel(
        model=MODEL,
        expert=lambda k: experts[k],
        available_K=available or [True] * len(experts),
        router=by_pooled_text,
    )


def test_each_clip_comes_from_the_expert_that_the_router_picks() -> None:
    experts = [constant(-0.5), constant(0.5)]
    picked: list[list[int]] = []
    clips = sample(
        routed(experts),
        text_for([0, 1, 1]),
        [1, 2, 3],
        SETTINGS,
        lambda step, total, picked_B: picked.append(picked_B.tolist()),
    )
    torch.testing.assert_close(clips[0], torch.full_like(clips[0], -0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(clips[1:], torch.full_like(clips[1:], 0.5), atol=1e-5, rtol=0)
    assert picked == [[0, 1, 1]] * SETTINGS.steps
    assert experts[1].batches == [2] * SETTINGS.steps


def test_missing_expert_is_routed_around_and_never_asked_for() -> None:
    experts = [constant(-0.5), constant(0.5)]
    clips = sample(routed(experts, [True, False]), text_for([1]), [1], SETTINGS)
    torch.testing.assert_close(clips, torch.full_like(clips, -0.5), atol=1e-5, rtol=0)
    assert experts[1].batches == []


def test_guidance_moves_away_from_the_answer_without_text() -> None:
    settings = dataclasses.replace(SETTINGS, guidance=2.0)
    clips = sample(routed([constant(0.25), constant(0.0)]), text_for([0]), [1], settings)
    torch.testing.assert_close(clips, torch.full_like(clips, 0.5), atol=1e-5, rtol=0)


def test_top_two_mixes_velocities_by_probability() -> None:
    settings = dataclasses.replace(SETTINGS, top_k=2)
    clips = sample(routed([constant(0.0), constant(1.0)]), text_for([1]), [1], settings)
    share = float(torch.tensor([0.0, 5.0]).softmax(0)[1])
    torch.testing.assert_close(clips, torch.full_like(clips, share), atol=1e-5, rtol=0)


def real_routed() -> RoutedModel:
    from kinoswarm_model.experts import build_expert

    experts = [build_expert(MODEL, seed=k) for k in range(2)]
    for expert in experts:
        torch.nn.init.normal_(expert.network.get_submodule("proj_out").weight, std=0.3)
    router = build_router(MODEL, 2, seed=0)
    return RoutedModel(
        model=MODEL, expert=lambda k: experts[k], available_K=[True, True], router=router
    )


def test_same_seed_gives_the_same_bytes_and_another_seed_another_clip() -> None:
    model, text = real_routed(), text_batch(MODEL, 2)
    first = sample(model, text, [7, 8], SETTINGS)
    assert torch.equal(first, sample(model, text, [7, 8], SETTINGS))
    other = sample(model, text, [7, 9], SETTINGS)
    assert not torch.equal(first[1], other[1])
    torch.testing.assert_close(first[0], other[0], atol=1e-4, rtol=1e-4)


def test_a_clip_does_not_depend_on_its_companions() -> None:
    model, text = real_routed(), text_batch(MODEL, 3)
    together = sample(model, text, [7, 8, 9], SETTINGS)
    alone = TextBatch(
        tokens_BLD=text.tokens_BLD[1:2], mask_BL=text.mask_BL[1:2], pooled_BD=text.pooled_BD[1:2]
    )
    torch.testing.assert_close(
        together[1:2], sample(model, alone, [8], SETTINGS), atol=1e-4, rtol=1e-4
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_top_k_keeps_k_experts_and_sums_to_one(seed: int, k: int) -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
    weights = top_k_weights(probabilities(logits, [True] * 5), k)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert int((weights > 0).sum(1).max()) == min(k, 5)
    assert torch.equal(weights.argmax(1), logits.argmax(1))


def test_top_one_is_a_one_hot_choice_and_ties_go_to_the_lower_index() -> None:
    weights = top_k_weights(torch.tensor([[0.25, 0.5, 0.25], [0.4, 0.2, 0.4]]), 1)
    assert weights.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def test_threshold_keeps_the_best_even_when_none_reaches_it() -> None:
    p = torch.tensor([[0.5, 0.3, 0.2], [0.34, 0.33, 0.33]])
    weights = threshold_weights(p, 0.3)
    torch.testing.assert_close(weights[0], torch.tensor([0.625, 0.375, 0.0]))
    assert threshold_weights(p, 0.9)[1].tolist() == [1.0, 0.0, 0.0]


def test_no_expert_at_all_says_what_to_do() -> None:
    with pytest.raises(LocalError, match="download"):
        probabilities(torch.zeros(1, 2), [False, False])


def test_router_is_built_equal_from_equal_seeds_and_has_one_logit_per_cluster() -> None:
    first, second = build_router(MODEL, 3, seed=4), build_router(MODEL, 3, seed=4)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert router_shapes(MODEL, 3)["head.weight"] == (3, MODEL.router.width)


def test_balancing_lowers_only_experts_that_are_picked_too_often() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_NK = torch.randn(400, 4, generator=generator)
    logits_NK[:, 2] += 3.0
    bias_K = balancing_bias(logits_NK, 0.4)
    picked_K = torch.bincount((logits_NK + bias_K).argmax(dim=1), minlength=4)
    assert picked_K.max() <= 160
    assert picked_K[2] >= 150
    assert bias_K[2] < -1.0
    assert bias_K[[0, 1, 3]].abs().max() == 0.0


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_balancing_leaves_a_balanced_router_alone(share: float) -> None:
    logits_NK = torch.eye(4).repeat(10, 1)
    assert not balancing_bias(logits_NK, share).any()


def test_even_a_constant_router_is_balanced_as_far_as_it_can_tell_clips_apart() -> None:
    logits_NK = torch.zeros(8, 2)
    logits_NK[:, 0] = torch.linspace(1.0, 2.0, 8)
    picked = (logits_NK + balancing_bias(logits_NK, 0.5)).argmax(dim=1)
    assert sorted(picked.tolist()) == [0, 0, 0, 0, 1, 1, 1, 1]
