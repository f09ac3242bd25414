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


def test_weights_take_the_type_that_is_asked_for(release_dir: Path) -> None:
    half = RoutedVideoPipeline.from_pretrained(release_dir, torch_dtype=torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    whole = RoutedVideoPipeline.from_pretrained(release_dir)
    whole.set_progress_bar_config(disable=True)
    rough = half("a wall", generator=seeded(1)).frames
    exact = whole("a wall", generator=seeded(1)).frames
    assert half.dtype == torch.bfloat16
    assert next(half.experts(0).parameters()).dtype == torch.bfloat16
    assert not np.array_equal(rough, exact)
    assert np.abs(rough - exact).mean() < 0.02
    assert half.experts(0).network.rope.freqs_cos.dtype == torch.float32


@pytest.mark.parametrize("num_frames", [1, 3, 6])
def test_clips_may_have_another_length(pipe: RoutedVideoPipeline, num_frames: int) -> None:
    frames = pipe("a", num_frames=num_frames, num_inference_steps=2).frames
    assert frames.shape == (1, num_frames, 32, 32, 3)


def test_a_length_beyond_what_the_model_knows_is_refused(pipe: RoutedVideoPipeline) -> None:
    with pytest.raises(LocalError, match="makes 1 to 128"):
        pipe("a", num_frames=129)


def test_no_more_experts_are_held_than_asked_for(
    pipe: RoutedVideoPipeline, release_dir: Path
) -> None:
    """Both experts are mixed in every step, so each is read from its file again and again."""
    frugal = RoutedVideoPipeline.from_pretrained(release_dir, experts_in_memory=1)
    frugal.set_progress_bar_config(disable=True)
    held: list[int] = []
    whole = pipe("a wall", top_k=2, generator=seeded(1)).frames
    again = frugal(
        "a wall",
        top_k=2,
        generator=seeded(1),
        callback_on_step_end=lambda of, step, t, found: held.append(len(of.experts.loaded)),
    ).frames
    assert np.array_equal(whole, again)
    assert set(held) == {1}


def test_the_least_recently_used_expert_goes_first(release_dir: Path) -> None:
    experts = RoutedVideoPipeline.from_pretrained(release_dir).experts
    for index in (0, 1, 0):
        experts(index)
    experts.keep_at_most(1)
    assert list(experts.loaded) == ["0"]


def test_an_experts_weights_stay_in_their_file_until_they_are_moved(release_dir: Path) -> None:
    experts = RoutedVideoPipeline.from_pretrained(release_dir).experts
    one = experts(0).network.proj_out.weight
    experts.keep_at_most(1)
    experts(1)
    assert not torch.equal(one, experts(1).network.proj_out.weight)
    assert torch.equal(one, experts(0).network.proj_out.weight)


def test_an_expert_that_is_missing_is_routed_around(damaged: Damage) -> None:
    folder = damaged("experts/0/diffusion_pytorch_model.safetensors", b"")
    (folder / "experts/0/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(LocalError, match="lacks experts/0"):
        RoutedVideoPipeline.from_pretrained(folder)
    rest = RoutedVideoPipeline.from_pretrained(folder, allow_missing_experts=True)
    rest.set_progress_bar_config(disable=True)
    used: set[int] = set()
    rest(
        ["a", "b"],
        callback_on_step_end=lambda of, step, t, found: used.update(found["expert"].tolist()),
    )
    assert used == {1}


def test_offloading_holds_one_expert_on_the_device(release_dir: Path) -> None:
    frugal = RoutedVideoPipeline.from_pretrained(release_dir)
    frugal.enable_model_cpu_offload(device="meta")
    for index in (0, 1):
        frugal.experts(index)
    assert list(frugal.experts.loaded) == ["1"]
    assert next(frugal.experts(1).parameters()).device.type == "meta"


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
