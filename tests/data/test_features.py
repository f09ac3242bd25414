"""Picture features: unit vectors that see what is in the picture, alike in any batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data.tiny_videos import striped
from transformers import Dinov2Config, Dinov2Model

from kinoswarm_model.data.errors import DataError
from kinoswarm_model.data.features import EFFICIENTNET_DIM, PictureFeatures


def clips_of(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.stack([striped(colour).transpose(3, 0, 1, 2) for colour in colours])


def test_features_are_unit_vectors_and_near_for_what_looks_alike() -> None:
    red, darker_red, blue = PictureFeatures.load().of(
        clips_of((220, 20, 20), (190, 20, 20), (20, 20, 220))
    )
    assert red.shape == (EFFICIENTNET_DIM,)
    np.testing.assert_allclose(np.linalg.norm([red, blue], axis=1), 1.0, atol=1e-5)
    assert red @ darker_red > red @ blue


def test_features_do_not_depend_on_the_batch() -> None:
    colours = [(10 * i, 200 - 10 * i, 90) for i in range(11)]
    network = PictureFeatures.load()
    together, alone = network.of(clips_of(*colours)), network.of(clips_of(colours[10]))
    np.testing.assert_allclose(together[10], alone[0], atol=1e-4)


@pytest.fixture
def dino(tmp_path: Path) -> Path:
    """A tiny DINOv2 with random weights, as its folder looks."""
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    torch.manual_seed(0)
    Dinov2Model(config).save_pretrained(tmp_path / "dino")
    return tmp_path / "dino"


def test_dino_features_come_from_a_local_folder(dino: Path) -> None:
    network = PictureFeatures.load(dino)
    found = network.of(clips_of((220, 20, 20), (20, 20, 220)))
    assert found.shape == (2, network.dim) == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)


def test_a_folder_without_dino_says_how_to_get_it_and_another_model_is_refused(dino: Path) -> None:
    with pytest.raises(DataError, match=r"lacks config.json.*download facebook/dinov2-small"):
        PictureFeatures.load(dino / "nowhere")
    (dino / "config.json").write_text('{"model_type": "bert", "auto_map": {}}')
    with pytest.raises(DataError, match="'bert' model; dinov2 is what features need"):
        PictureFeatures.load(dino)
    (dino / "config.json").write_text("[1]")
    with pytest.raises(DataError, match="can't be read"):
        PictureFeatures.load(dino)


def test_damaged_dino_weights_are_named(dino: Path) -> None:
    (dino / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match="is damaged"):
        PictureFeatures.load(dino)
