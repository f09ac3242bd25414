"""Flow matching: paths, targets, losses and time grids as pure functions. Owns the maths; no networks, no randomness.

x_0 is data, x_1 noise, t runs from 0 (data) to 1 (noise): x_t = (1 - t) x_0 + t eps, v = eps - x_0.

Every network puts out what the recipe says, a clean clip or a velocity, whatever its expert's objective. A velocity is
read as a noise prediction by eps_hat = x_t + (1 - t) v_hat, so eps_hat - eps = (1 - t) (v_hat - v): an expert with the
objective `epsilon` regresses the noise, starts from the common seed like every other, and gives the sampler a velocity
without the division by 1 - t that a network of noise needs, which has no value at t = 1, where sampling begins.
Shapes: B batch, C channels, T frames, H height, W width.
"""

import torch
from torch import Tensor

from kinoswarm_protocol.specs import Objective, RecipeSpec

_SMALLEST_T = 1e-4
"""Keeps the velocity finite at t = 0, where nobody needs it."""

LEAST_SIGNAL = 0.2
"""Noise errors count as if 1 - t were at least this. At t = 1 a noise prediction is right whatever the velocity
(arXiv 2305.08891): without the floor the first steps of sampling would be neither trained nor judged."""


def shifted(t: Tensor, shift: float) -> Tensor:
    """Time shift t' = a t / (1 + (a - 1) t) (Open-Sora 2.0, Stable Diffusion 3); a = 1 is the identity."""
    return shift * t / (1.0 + (shift - 1.0) * t)


def times_of(normal_B: Tensor, recipe: RecipeSpec) -> Tensor:
    """Training times in (0, 1): a shifted sigmoid of `t_mean + t_std * normal`."""
    return shifted(torch.sigmoid(recipe.t_mean + recipe.t_std * normal_B), recipe.shift)


def sigmas_of(steps: int, shift: float) -> list[float]:
    """`steps + 1` noise levels from exactly 1 to exactly 0 for the Euler sampler, the shift applied once."""
    t = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    return [float(value) for value in shifted(t, shift)]


def noised(x_0_BCTHW: Tensor, eps_BCTHW: Tensor, t_B: Tensor) -> Tensor:
    """x_t on the straight path from data to noise."""
    t_B1111 = _per_clip(t_B)
    return torch.lerp(x_0_BCTHW, eps_BCTHW, t_B1111.expand_as(x_0_BCTHW))


def velocity_of(
    prediction_BCTHW: Tensor, x_t_BCTHW: Tensor, t_B: Tensor, recipe: RecipeSpec
) -> Tensor:
    """The velocity that a prediction stands for.

    A clean-clip prediction gives v = (x_t - x_0) / t (arXiv 2511.13720); a velocity prediction is v. Samplers ask at
    t > 0 only; the loss's floor would leave noise behind in their last step.
    """
    if recipe.prediction == "velocity":
        return prediction_BCTHW
    return (x_t_BCTHW - prediction_BCTHW) / _per_clip(t_B).clamp_min(_SMALLEST_T)


def clean_of(
    prediction_BCTHW: Tensor, x_t_BCTHW: Tensor, t_B: Tensor, recipe: RecipeSpec
) -> Tensor:
    """The clean clip that a prediction stands for: x_0 = x_t - t v."""
    if recipe.prediction == "clean":
        return prediction_BCTHW
    return x_t_BCTHW - _per_clip(t_B) * prediction_BCTHW


def losses_of(
    prediction_BCTHW: Tensor,
    x_0_BCTHW: Tensor,
    eps_BCTHW: Tensor,
    t_B: Tensor,
    recipe: RecipeSpec,
    objective: Objective = "velocity",
) -> Tensor:
    """Mean squared error of every clip, shape (B,): of the velocity or, for `epsilon`, of the noise.

    For clean-clip prediction both sides are divided by the floored t, so that a perfect prediction costs nothing:
    the velocity loss is |x_0 - prediction|^2 / max(t, t_floor)^2. The noise loss is max(1 - t, LEAST_SIGNAL)^2 times
    the velocity loss.
    """
    if recipe.prediction == "velocity":
        target_BCTHW, weight_B = eps_BCTHW - x_0_BCTHW, torch.ones_like(t_B)
    else:
        target_BCTHW, weight_B = x_0_BCTHW, t_B.clamp_min(recipe.t_floor).pow(-2)
    error_B = (prediction_BCTHW.float() - target_BCTHW).square().flatten(1).mean(1)
    if objective == "epsilon":
        weight_B = weight_B * (1.0 - t_B).clamp_min(LEAST_SIGNAL).square()
    return error_B * weight_B


def _per_clip(t_B: Tensor) -> Tensor:
    return t_B.view(-1, 1, 1, 1, 1)
