"""Every VAE class of the allow-list, tiny and of random weights: loaded from its folder, clips back as they went in."""

from pathlib import Path
from typing import Any

import pytest
import torch

from kinoswarm_model.vae import Steps, VideoVae
from kinoswarm_protocol.errors import LocalError

SMALL: dict[str, dict[str, Any]] = {
    "AutoencoderKLWan": {
        "base_dim": 4,
        "z_dim": 4,
        "dim_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
    },
    "AutoencoderKLHunyuanVideo": {
        "latent_channels": 4,
        "block_out_channels": (8, 8, 8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
    "AutoencoderKLLTXVideo": {
        "latent_channels": 8,
        "block_out_channels": (8, 8, 8, 8),
        "decoder_block_out_channels": (8, 8, 8, 8),
        "layers_per_block": (1, 1, 1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1, 1, 1),
    },
    "AutoencoderKLCogVideoX": {
        "latent_channels": 4,
        "block_out_channels": (8, 8, 8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
}
GEOMETRY = {
    "AutoencoderKLWan": (9, 32, Steps(4, 8, 4)),
    "AutoencoderKLHunyuanVideo": (9, 32, Steps(4, 8, 4)),
    "AutoencoderKLLTXVideo": (9, 64, Steps(8, 32, 8)),
    "AutoencoderKLCogVideoX": (9, 32, Steps(4, 8, 4)),
}
"""Frames and size of the pixels, and how many of them go into one latent."""


def load(name: str, folder: Path) -> VideoVae:
    import diffusers

    torch.manual_seed(0)
    getattr(diffusers, name)(**SMALL[name]).save_pretrained(folder)
    return VideoVae.load(folder)


@pytest.mark.parametrize("name", SMALL)
def test_clips_come_back_in_their_size_and_equal_ones_give_equal_latents(
    name: str, tmp_path: Path
) -> None:
    vae = load(name, tmp_path)
    frames, size, steps = GEOMETRY[name]
    assert vae.class_name == name
    assert vae.steps(frames, size, size) == steps
    generator = torch.Generator().manual_seed(1)
    clips = torch.randint(
        0, 256, (2, 3, frames, size, size), dtype=torch.uint8, generator=generator
    )
    latents = vae.encode(clips)
    side = size // steps.pixel_step
    wanted = (2, steps.channels, 1 + (frames - 1) // steps.frame_step, side, side)
    assert latents.shape == wanted
    assert latents.dtype == torch.float32
    assert torch.equal(latents, vae.encode(clips))
    pixels = vae.decode(latents)
    assert pixels.shape == clips.shape
    assert bool(pixels.isfinite().all())


@pytest.mark.parametrize("name", SMALL)
def test_a_length_that_a_class_can_not_keep_is_refused(name: str, tmp_path: Path) -> None:
    frames, size, _ = GEOMETRY[name]
    with pytest.raises(LocalError, match="frames"):
        load(name, tmp_path).steps(frames + 1, size, size)
