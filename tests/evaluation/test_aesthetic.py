"""The aesthetic hook: absent weights are named, present ones are used, wrong ones are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kinoswarm_model.evaluation.aesthetic import HEAD, Aesthetic, NotAtHand, aesthetic_predictor
from kinoswarm_protocol.errors import LocalError


def _tiny_clip(folder: Path) -> None:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=8,
    )
    torch.manual_seed(0)
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size).save_pretrained(folder)


def test_score_is_the_head_on_a_unit_embedding(tmp_path: Path) -> None:
    _tiny_clip(tmp_path)
    save_file({"weight": torch.zeros(1, 8), "bias": torch.tensor([5.5])}, tmp_path / HEAD)
    predictor = aesthetic_predictor(tmp_path)
    assert isinstance(predictor, Aesthetic)
    clips = np.random.default_rng(0).integers(0, 255, (3, 4, 24, 32, 3), dtype=np.uint8)
    np.testing.assert_allclose(predictor.scores(clips), 5.5)
    save_file({"weight": torch.ones(1, 8), "bias": torch.tensor([5.5])}, tmp_path / HEAD)
    scored = aesthetic_predictor(tmp_path)
    assert isinstance(scored, Aesthetic)
    assert np.all(np.abs(scored.scores(clips) - 5.5) <= np.sqrt(8) + 1e-6)
    assert np.std(scored.scores(clips)) > 0


def test_absent_weights_are_not_at_hand_and_the_reason_names_them(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        missing = aesthetic_predictor(folder)
        assert isinstance(missing, NotAtHand)
        assert HEAD in missing.reason


def test_a_head_of_another_width_is_refused(tmp_path: Path) -> None:
    _tiny_clip(tmp_path)
    save_file({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, tmp_path / HEAD)
    with pytest.raises(LocalError, match=r"weight \(1, 8\)"):
        aesthetic_predictor(tmp_path)
