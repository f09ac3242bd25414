"""The routed Euler sampler. Owns the denoising loop: one router call per step, experts mixed by its weights.

diffusers' FlowMatchEulerDiscreteScheduler applies the shift twice (its issue #13243), so the loop is our own. Guidance
is applied per expert and the guided velocities are mixed (arXiv 2510.03434). Within a step, clips are grouped by
expert, so that every expert is called once; experts come from a provider and may be loaded on first use.
Shapes: B batch, C channels, T frames, H height, W width, L text tokens, D text width, K clusters.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinoswarm_model.clip_codecs import Decode, pixels_of
from kinoswarm_model.experts import Denoiser
from kinoswarm_model.flow import sigmas_of, velocity_of
from kinoswarm_model.noise import Purpose, clip_noise, stream
from kinoswarm_model.routing import probabilities, threshold_weights, top_k_weights
from kinoswarm_protocol.specs import ClipSpec, ModelSpec, RecipeSpec

RouterCall = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t_BCTHW, t_B, text_pooled_BD) -> logits_BK; a Router is one."""

OnStep = Callable[[int, int, Tensor], None]
"""(step from 0, number of steps, most weighted expert of every clip as an integer tensor of shape (B,))."""


@dataclass(frozen=True, kw_only=True)
class RoutedModel:
    """A router and its experts. Without a router every clip goes to the first available expert."""

    model: ModelSpec
    expert: Callable[[int], Denoiser]
    """Gives the expert of a cluster; may load it on first use."""
    available_K: Sequence[bool]
    router: RouterCall | None
    decode: Decode = pixels_of
    """From what is sampled to pixels."""


@dataclass(frozen=True, kw_only=True)
class TextBatch:
    """Cached text of a batch of clips."""

    tokens_BLD: Tensor
    mask_BL: Tensor
    pooled_BD: Tensor


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """How to sample. `steps` >= 1; `guidance` 1 is off; `shift` 1 is off."""

    steps: int
    guidance: float
    shift: float
    top_k: int
    threshold: float | None = None
    """Keep every expert of at least this probability instead of the top k."""


def settings_of(recipe: RecipeSpec) -> SampleSettings:
    """The recipe's own way to sample."""
    return SampleSettings(
        steps=recipe.sample_steps,
        guidance=recipe.guidance,
        shift=recipe.shift,
        top_k=recipe.top_k,
    )


def initial_noise(clip: ClipSpec, seeds: Sequence[int], device: torch.device) -> Tensor:
    """Noise of every clip from its own seed, drawn on the CPU: shape (B, C, T, H, W)."""
    clips = [clip_noise(stream(seed, Purpose.SAMPLE), clip) for seed in seeds]
    return torch.stack(clips).to(device)


@torch.no_grad()
def sample(
    routed: RoutedModel,
    text: TextBatch,
    seeds: Sequence[int],
    settings: SampleSettings,
    on_step: OnStep | None = None,
) -> Tensor:
    """Clips of shape (B, C, T, H, W), pixels in about -1..1. A clip depends on its own seed and text only."""
    x_BCTHW = initial_noise(routed.model.clip, seeds, text.tokens_BLD.device)
    sigmas = sigmas_of(settings.steps, settings.shift)
    for step, (t, t_next) in enumerate(itertools.pairwise(sigmas)):
        t_B = torch.full((len(seeds),), t, device=x_BCTHW.device)
        weights_BK = route(routed, x_BCTHW, t_B, text.pooled_BD, settings)
        v_BCTHW = mixed_velocity(routed, x_BCTHW, t_B, text, weights_BK, settings.guidance)
        x_BCTHW = x_BCTHW + (t_next - t) * v_BCTHW
        if on_step is not None:
            on_step(step, settings.steps, weights_BK.argmax(dim=1))
    return x_BCTHW


def route(
    routed: RoutedModel, x_BCTHW: Tensor, t_B: Tensor, pooled_BD: Tensor, settings: SampleSettings
) -> Tensor:
    """Weights of shape (B, K) over the available experts; where there is one alone, the router is not asked."""
    if routed.router is None or len(routed.available_K) == 1:
        logits_BK = torch.zeros(len(t_B), len(routed.available_K), device=t_B.device)
    else:
        logits_BK = routed.router(x_BCTHW, t_B, pooled_BD)
    p_BK = probabilities(logits_BK, routed.available_K)
    if routed.router is None:
        return top_k_weights(p_BK, 1)
    if settings.threshold is not None:
        return threshold_weights(p_BK, settings.threshold)
    return top_k_weights(p_BK, settings.top_k)


def mixed_velocity(
    routed: RoutedModel,
    x_BCTHW: Tensor,
    t_B: Tensor,
    text: TextBatch,
    weights_BK: Tensor,
    guidance: float,
) -> Tensor:
    """Sum over experts of weight times guided velocity; every expert sees only the clips that it has weight in."""
    mixed_BCTHW = torch.zeros_like(x_BCTHW)
    for k in range(weights_BK.shape[1]):
        rows = torch.nonzero(weights_BK[:, k] > 0).squeeze(1)
        if len(rows) == 0:
            continue
        v = guided_velocity(
            routed.expert(k),
            routed.model.recipe,
            x_BCTHW[rows],
            t_B[rows],
            TextBatch(
                tokens_BLD=text.tokens_BLD[rows],
                mask_BL=text.mask_BL[rows],
                pooled_BD=text.pooled_BD[rows],
            ),
            guidance,
        )
        mixed_BCTHW[rows] += weights_BK[rows, k].view(-1, 1, 1, 1, 1) * v
    return mixed_BCTHW


def guided_velocity(
    expert: Denoiser,
    recipe: RecipeSpec,
    x_BCTHW: Tensor,
    t_B: Tensor,
    text: TextBatch,
    guidance: float,
) -> Tensor:
    """Classifier-free guidance v_null + guidance (v_text - v_null); one call without text when guidance is 1."""
    if guidance == 1.0:
        return velocity_of(
            expert(x_BCTHW, t_B, text.tokens_BLD, text.mask_BL), x_BCTHW, t_B, recipe
        )
    tokens = torch.cat([text.tokens_BLD, torch.zeros_like(text.tokens_BLD)])
    mask = torch.cat([text.mask_BL, torch.zeros_like(text.mask_BL)])
    x_twice, t_twice = torch.cat([x_BCTHW, x_BCTHW]), torch.cat([t_B, t_B])
    prediction = expert(x_twice, t_twice, tokens, mask)
    v_text, v_null = velocity_of(prediction, x_twice, t_twice, recipe).chunk(2)
    return v_null + guidance * (v_text - v_null)
