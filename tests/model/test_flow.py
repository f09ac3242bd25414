"""Flow matching: identities of the path, the two predictions, and seeded goldens."""

import msgspec
import pytest
import torch
from model.samples import tiny_model

from kinoswarm_model import flow

RECIPE = tiny_model().recipe
VELOCITY = msgspec.structs.replace(RECIPE, prediction="velocity")


def triple() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randn(3, 1, 2, 2, 2, generator=generator)
    eps = torch.randn(3, 1, 2, 2, 2, generator=generator)
    return x_0, eps, torch.tensor([0.05, 0.5, 1.0])


def test_path_runs_from_data_to_noise() -> None:
    x_0, eps, _ = triple()
    assert torch.equal(flow.noised(x_0, eps, torch.zeros(3)), x_0)
    torch.testing.assert_close(flow.noised(x_0, eps, torch.ones(3)), eps)


def test_both_predictions_stand_for_the_same_velocity_and_clip() -> None:
    x_0, eps, t = triple()
    x_t = flow.noised(x_0, eps, t)
    torch.testing.assert_close(
        flow.velocity_of(x_0, x_t, t, RECIPE), eps - x_0, rtol=1e-4, atol=1e-4
    )
    assert torch.equal(flow.velocity_of(eps - x_0, x_t, t, VELOCITY), eps - x_0)
    torch.testing.assert_close(flow.clean_of(eps - x_0, x_t, t, VELOCITY), x_0)
    assert torch.equal(flow.clean_of(x_0, x_t, t, RECIPE), x_0)


def test_perfect_predictions_cost_nothing_and_small_t_is_floored() -> None:
    x_0, eps, t = triple()
    assert float(flow.losses_of(x_0, x_0, eps, t, RECIPE).max()) == 0.0
    assert float(flow.losses_of(eps - x_0, x_0, eps, t, VELOCITY).max()) == 0.0
    off_by_one = flow.losses_of(x_0 + 1, x_0, eps, t, RECIPE)
    wanted = 1 / t.clamp_min(RECIPE.t_floor) ** 2
    torch.testing.assert_close(off_by_one, wanted)


def test_clean_loss_is_the_velocity_loss_above_the_floor() -> None:
    x_0, eps, _ = triple()
    t = torch.tensor([0.7, 0.8, 0.9])
    x_t = flow.noised(x_0, eps, t)
    guess = x_0 + 0.3 * eps
    v = flow.velocity_of(guess, x_t, t, RECIPE)
    wanted = (v - (eps - x_0)).square().flatten(1).mean(1)
    torch.testing.assert_close(flow.losses_of(guess, x_0, eps, t, RECIPE), wanted)


@pytest.mark.parametrize("shift", [0.5, 1.0, 5.0])
def test_sigmas_fall_from_exactly_one_to_exactly_zero(shift: float) -> None:
    sigmas = flow.sigmas_of(8, shift)
    assert sigmas[0] == 1.0
    assert sigmas[-1] == 0.0
    assert sigmas == sorted(sigmas, reverse=True)
    assert len(sigmas) == 9


def test_shift_is_applied_once() -> None:
    assert flow.sigmas_of(2, 5.0)[1] == pytest.approx(5 * 0.5 / (1 + 4 * 0.5))


def test_times_follow_the_golden_values() -> None:
    recipe = msgspec.structs.replace(RECIPE, t_mean=0.5, t_std=2.0, shift=3.0)
    times = flow.times_of(torch.tensor([-1.0, 0.0, 1.0]), recipe)
    wanted = torch.tensor([0.40097897, 0.83182434, 0.97336706])
    torch.testing.assert_close(times, wanted, atol=1e-6, rtol=0)
