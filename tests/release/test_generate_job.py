"""A clip for a visitor: the same as `kinoswarm generate` makes, with the expert of every step."""

from pathlib import Path

import numpy as np
import pytest
from release.tiny_release import NUM_EXPERTS, PROMPTS, tiny_model

from kinoswarm_model.generate import GenerateConfig, generate
from kinoswarm_model.generate_job import run
from kinoswarm_model.jobs import GenerateJob, JobProgress
from kinoswarm_model.video_io import mp4_bytes
from kinoswarm_protocol.errors import LocalError


def job(release_dir: Path, work_dir: Path, prompt: str = PROMPTS[0]) -> GenerateJob:
    return GenerateJob(
        job_id="a",
        model=tiny_model(),
        work_dir=str(work_dir),
        release_dir=str(release_dir),
        prompt=prompt,
        seed=5,
    )


def test_the_clip_is_the_one_that_generate_makes(release_dir: Path, tmp_path: Path) -> None:
    told: list[JobProgress] = []
    done = run(job(release_dir, tmp_path), told.append)
    (clip,) = generate(release_dir, [PROMPTS[0]], GenerateConfig(seed=5))
    assert np.std(clip) > 0
    assert Path(done.clip_path).read_bytes() == mp4_bytes(clip, tiny_model().clip.fps, scale=8)
    steps = tiny_model().recipe.sample_steps
    assert [event.step for event in told] == list(range(1, steps + 1))
    assert [event.expert for event in told] == done.expert_by_step
    assert set(done.expert_by_step) <= set(range(NUM_EXPERTS))


def test_an_empty_prompt_is_told_and_nothing_is_written(release_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="the prompt is empty"):
        run(job(release_dir, tmp_path, "  "), lambda event: None)
    assert list(tmp_path.iterdir()) == []
