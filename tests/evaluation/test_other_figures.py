"""Figures that need named weights: measured with tiny ones, and told how to get when there are none."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizerFast,
    CLIPVisionConfig,
)

from kinoswarm_model.evaluation.i3d import FEATURES, I3D
from kinoswarm_model.evaluation.other_figures import Compared, OtherWeights, other_figures
from kinoswarm_model.evaluation.report import Figure, NotMeasured
from kinoswarm_protocol.errors import LocalError

scripted = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
"""torch would rather have torch.export, but the published I3D is TorchScript."""


class TinyI3D(torch.nn.Module):
    """Takes the published network's arguments; features are averages of the clip's parts."""

    def forward(
        self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool
    ) -> torch.Tensor:
        assert x.shape[3] == 224
        assert x.shape[4] == 224
        assert not rescale
        assert not resize
        parts = torch.nn.functional.adaptive_avg_pool3d(x, (4, 6, 6))
        return parts.flatten(1)[:, :400] if return_features else x.mean()


def clips(count: int, frames: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    base = generator.integers(0, 255, (count, 1, 20, 16, 3))
    drift = np.arange(frames)[None, :, None, None, None] * 3
    return ((base + drift) % 256).astype(np.uint8)


def compared(frames: int = 12) -> Compared:
    return Compared(
        made=clips(6, frames, 1),
        made_captions=["a red wall"] * 6,
        real=clips(8, frames, 2),
        real_captions=["a blue wall"] * 8,
    )


def ignore(done: int, total: int, what: str) -> None:
    pass


@pytest.fixture(scope="module")
def i3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("i3d") / "i3d.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(TinyI3D()), str(path))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=54,
        bos_token_id=52,
        eos_token_id=53,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    letters = [chr(code) for code in range(97, 123)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    CLIPTokenizerFast(vocab=vocabulary, merges=[]).save_pretrained(folder)
    return folder


def test_what_is_not_at_hand_says_how_to_get_it() -> None:
    found = other_figures(compared(), OtherWeights(), ignore)
    assert isinstance(found.motion, Figure)
    for figure, said in (
        (found.fvd, "i3d_torchscript.pt"),
        (found.clip_text, "openai/clip"),
        (found.aesthetic, "CLIP"),
    ):
        assert isinstance(figure, NotMeasured)
        assert said in figure.reason


def test_published_fvd_is_zero_for_equal_clips_and_grows_with_difference(i3d: Path) -> None:
    network = I3D.load(i3d)
    real = clips(8, 12, 2)
    assert network.features(real).shape == (8, FEATURES)
    assert network.fvd(real, real) == pytest.approx(0.0, abs=1e-3)
    assert network.fvd(real // 3, real) > 0.1


def test_clips_that_are_too_short_for_i3d_are_told(i3d: Path) -> None:
    found = other_figures(compared(frames=8), OtherWeights(i3d=i3d), ignore)
    assert isinstance(found.fvd, NotMeasured)
    assert "at least 10 frames; these have 8" in found.fvd.reason


@scripted
def test_what_is_no_i3d_is_refused_in_words(i3d: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.pt").write_bytes(b"torn")
    with pytest.raises(LocalError, match=r"torn.pt is no TorchScript file"):
        I3D.load(tmp_path / "torn.pt")
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), str(tmp_path / "relu.pt"))
    with pytest.raises(LocalError, match="does not take I3D's arguments"):
        I3D.load(tmp_path / "relu.pt").features(clips(2, 12, 1))


def test_clip_scores_a_clip_with_its_own_caption(clip: Path) -> None:
    given = compared()
    found = other_figures(given, OtherWeights(clip=clip), ignore).clip_text
    assert isinstance(found, Figure)
    assert -100 <= found.release <= 100
    other = other_figures(
        replace(given, made_captions=["zebra"] * 6), OtherWeights(clip=clip), ignore
    )
    assert isinstance(other.clip_text, Figure)
    assert other.clip_text.release != found.release
    assert other.clip_text.real == found.real


def test_a_damaged_clip_folder_is_named(clip: Path, tmp_path: Path) -> None:
    for path in clip.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(LocalError, match="is damaged"):
        other_figures(compared(), OtherWeights(clip=tmp_path), ignore)
