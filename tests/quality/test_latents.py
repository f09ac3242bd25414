"""The linear codec of the comparison: exact at full rank, the best at less, and of a mean variance of one."""

import numpy as np
import pytest
import torch
from benchmarks.quality.latents import LatentPlan, fit_codec


def clips(count: int) -> np.ndarray:
    """Smooth moving patterns: (N, 3, 4, 8, 8)."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 2 * np.pi, (count, 3, 1, 1, 1))
    t, h, w = np.meshgrid(np.arange(4), np.arange(8), np.arange(8), indexing="ij")
    waves = np.sin(0.4 * w + 0.3 * h + 0.5 * t + phase)
    return ((waves + 1) * 120 + rng.uniform(0, 8, waves.shape)).astype(np.uint8)


def error(plan: LatentPlan) -> float:
    pixels = clips(64)
    codec = fit_codec(pixels, plan)
    back = codec.decode(torch.from_numpy(codec.encode(pixels)))
    return float(np.abs(back.astype(float) - pixels.transpose(0, 2, 3, 4, 1)).mean())


def test_all_channels_give_every_pixel_back() -> None:
    assert error(LatentPlan(patch=(2, 4, 4), channels=96)) < 0.01


def test_more_channels_lose_less() -> None:
    errors = [error(LatentPlan(patch=(2, 4, 4), channels=count)) for count in (2, 6, 24)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 2.0


@pytest.mark.parametrize("flattening", [0.0, 0.5, 1.0])
def test_latents_have_a_mean_variance_of_one(flattening: float) -> None:
    pixels = clips(64)
    plan = LatentPlan(patch=(2, 4, 4), channels=8, flattening=flattening)
    latents = fit_codec(pixels, plan).encode(pixels)
    assert latents.shape == (64, 8, 2, 2, 2)
    assert latents.dtype == np.float32
    spread = latents.var(axis=(0, 2, 3, 4))
    assert spread.mean() == pytest.approx(1.0, rel=0.1)
    if flattening == 1.0:
        assert spread == pytest.approx(np.ones(8), rel=0.5)
