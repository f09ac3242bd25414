"""Generation from a release: requests are checked, seeds decide the clip, settings are obeyed."""

from pathlib import Path

import numpy as np
import pytest

from kinoswarm_model.generate import GenerateConfig, generate, generate_from
from kinoswarm_model.release_reader import Release, open_release
from kinoswarm_model.video_io import write_mp4
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.limits import MAX_PROMPT


@pytest.fixture(scope="module")
def release(release_dir: Path) -> Release:
    return open_release(release_dir)


def mp4_bytes(release_dir: Path, path: Path, seed: int) -> bytes:
    (clip,) = generate(release_dir, ["a long corridor"], GenerateConfig(seed=seed))
    write_mp4(path, clip, 8, scale=4)
    return path.read_bytes()


def test_the_same_seed_gives_the_same_file_and_another_seed_another(
    release_dir: Path, tmp_path: Path
) -> None:
    first = mp4_bytes(release_dir, tmp_path / "a.mp4", seed=5)
    assert mp4_bytes(release_dir, tmp_path / "b.mp4", seed=5) == first
    assert mp4_bytes(release_dir, tmp_path / "c.mp4", seed=6) != first


def test_clips_are_bytes_of_the_models_geometry(release: Release) -> None:
    clips = generate_from(release, ["a", "b"], GenerateConfig(clips_per_prompt=2, steps=1))
    assert [clip.shape for clip in clips] == [(4, 32, 32, 3)] * 4
    assert clips[0].dtype == np.uint8


def test_clip_i_of_a_call_is_the_clip_of_seed_plus_i(release: Release) -> None:
    both = generate_from(release, ["a wall"], GenerateConfig(seed=7, clips_per_prompt=2))
    (second,) = generate_from(release, ["a wall"], GenerateConfig(seed=8))
    assert np.array_equal(both[1], second)


def test_steps_guidance_and_top_k_change_the_clip(release: Release) -> None:
    (usual,) = generate_from(release, ["a wall"], GenerateConfig(seed=1))
    for config in (
        GenerateConfig(seed=1, steps=2),
        GenerateConfig(seed=1, guidance=6.0),
        GenerateConfig(seed=1, top_k=2),
        GenerateConfig(seed=1, threshold=0.01),
    ):
        (other,) = generate_from(release, ["a wall"], config)
        assert not np.array_equal(usual, other)


@pytest.mark.parametrize("name", ["banana", "cuda:99", "mps:3", ""])
def test_a_device_that_is_not_here_is_named_with_those_that_are(
    release: Release, name: str
) -> None:
    with pytest.raises(LocalError, match=rf"device '{name}' is not here: torch finds .*cpu"):
        generate_from(release, ["a wall"], GenerateConfig(device=name))


def test_progress_counts_all_steps(release: Release) -> None:
    seen: list[tuple[int, int]] = []
    config = GenerateConfig(steps=3, clips_per_prompt=2)
    generate_from(release, ["a wall"], config, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize(
    ("prompts", "config", "words"),
    [
        ([], GenerateConfig(), "at least one prompt"),
        (["  "], GenerateConfig(), "empty"),
        (["x" * (MAX_PROMPT + 1)], GenerateConfig(), f"at most {MAX_PROMPT}"),
        (["x"], GenerateConfig(seed=-1), "seed"),
        (["x"], GenerateConfig(steps=0), "steps"),
        (["x"], GenerateConfig(top_k=0), "top_k"),
        (["x"], GenerateConfig(threshold=1.5), "generate: threshold: Expected `float` <= 1.0"),
        (["x"], GenerateConfig(num_frames=0), "num_frames"),
        (["x"], GenerateConfig(dtype="int8"), "dtype"),  # type: ignore[arg-type]
        (["x"], GenerateConfig(guidance=float("nan")), "guidance"),
        (["x"] * 600, GenerateConfig(clips_per_prompt=2), "at most"),
    ],
)
def test_a_bad_request_is_refused_before_the_release_is_read(
    tmp_path: Path, prompts: list[str], config: GenerateConfig, words: str
) -> None:
    with pytest.raises(LocalError, match=words):
        generate(tmp_path / "nowhere", prompts, config)
