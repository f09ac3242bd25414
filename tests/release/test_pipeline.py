"""The diffusers pipeline: its call, its output forms, and that saving and loading keep the model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from release.conftest import Damage
from release.tiny_release import NUM_EXPERTS, tiny_model

from kinoswarm_model.flow import sigmas_of
from kinoswarm_model.pipeline import RoutedVideoPipeline
from kinoswarm_protocol.errors import LocalError, MalformedBytes


@pytest.fixture(scope="module")
def pipe(release_dir: Path) -> RoutedVideoPipeline:
    loaded = RoutedVideoPipeline.from_pretrained(release_dir)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_generator_decides_the_clip(pipe: RoutedVideoPipeline) -> None:
    first = pipe("a wall", generator=seeded(1)).frames
    assert np.array_equal(first, pipe("a wall", generator=seeded(1)).frames)
    assert not np.array_equal(first, pipe("a wall", generator=seeded(2)).frames)


def test_arrays_are_clips_of_numbers_from_zero_to_one(pipe: RoutedVideoPipeline) -> None:
    frames = pipe(["a", "b"], num_videos_per_prompt=2, num_inference_steps=1).frames
    assert frames.shape == (4, 4, 32, 32, 3)
    assert frames.min() >= 0.0
    assert frames.max() <= 1.0


def test_output_types_show_the_same_clip(pipe: RoutedVideoPipeline) -> None:
    forms = {
        form: pipe("a", generator=seeded(3), output_type=form).frames
        for form in ("np", "pt", "pil")
    }
    assert np.allclose(forms["pt"].permute(0, 1, 3, 4, 2).numpy(), forms["np"])
    picture = np.asarray(forms["pil"][0][2]) / 255.0
    assert np.allclose(picture, forms["np"][0, 2], atol=1e-6)


def test_guidance_steps_and_top_k_change_the_clip(pipe: RoutedVideoPipeline) -> None:
    usual = pipe("a wall", generator=seeded(1)).frames
    for settings in ({"guidance_scale": 5.0}, {"num_inference_steps": 2}, {"top_k": 2}):
        other = pipe("a wall", generator=seeded(1), **settings).frames
        assert not np.array_equal(usual, other)


def test_the_callback_sees_every_step_from_noise_to_data(pipe: RoutedVideoPipeline) -> None:
    seen: list[tuple[int, float]] = []

    def callback(of: RoutedVideoPipeline, step: int, t: float, found: dict[str, object]) -> None:
        assert of is pipe
        expert = found["expert"]
        assert isinstance(expert, torch.Tensor)
        assert 0 <= int(expert[0]) < NUM_EXPERTS
        seen.append((step, t))

    pipe("a", num_inference_steps=4, callback_on_step_end=callback)
    sigmas = sigmas_of(4, tiny_model().recipe.shift)
    assert seen == list(enumerate(sigmas[:-1]))


def test_a_saved_pipeline_generates_the_same_clip(
    pipe: RoutedVideoPipeline, tmp_path: Path
) -> None:
    pipe.save_pretrained(tmp_path / "saved")
    again = RoutedVideoPipeline.from_pretrained(tmp_path / "saved")
    again.set_progress_bar_config(disable=True)
    first = pipe("a wall", generator=seeded(1)).frames
    assert np.array_equal(first, again("a wall", generator=seeded(1)).frames)


def test_changed_weights_are_what_is_saved(release_dir: Path, tmp_path: Path) -> None:
    changed = RoutedVideoPipeline.from_pretrained(release_dir)
    with torch.no_grad():
        changed.experts(1).network.proj_out.bias.fill_(0.5)
    changed.save_pretrained(tmp_path / "saved")
    again = RoutedVideoPipeline.from_pretrained(tmp_path / "saved")
    assert bool((again.experts(1).network.proj_out.bias == 0.5).all())


def test_components_follow_a_move(release_dir: Path) -> None:
    moved = RoutedVideoPipeline.from_pretrained(release_dir).to("meta")
    assert next(moved.experts(0).parameters()).device.type == "meta"
    assert set(moved.components) == {"experts", "router", "text_encoder"}


def test_foreign_classes_are_refused(damaged: Damage) -> None:
    folder = damaged("model_index.json", b'{"_class_name": "EvilPipeline"}')
    with pytest.raises(MalformedBytes):
        RoutedVideoPipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    "settings", [{"prompt": ""}, {"prompt": "a", "output_type": "gif"}, {"prompt": []}]
)
def test_a_bad_call_is_refused(pipe: RoutedVideoPipeline, settings: dict[str, object]) -> None:
    with pytest.raises(LocalError):
        pipe(**settings)
