"""A clip of one expert alone: real bytes, the same for the same version, from the data's own captions."""

from pathlib import Path

import pytest
from model.samples import make_shard, tiny_model, write_tiny_shard
from msgspec import structs

from kinoswarm_model import sample_job
from kinoswarm_model.checkpoints import write_checkpoint
from kinoswarm_model.experts import build_expert
from kinoswarm_model.jobs import JobProgress, SampleJob
from kinoswarm_model.video_io import read_clip
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.specs import VaeSpec

MODEL = tiny_model()


def job(folder: Path, seed: int = 1, **changes: object) -> SampleJob:
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(
        folder / "base.safetensors", build_expert(MODEL, seed=seed).network.state_dict()
    )
    made = SampleJob(
        job_id="s",
        model=MODEL,
        work_dir=str(folder),
        checkpoint_path=str(folder / "base.safetensors"),
        shard_path=write_tiny_shard(folder / "shard.safetensors"),
        seed=0,
    )
    return structs.replace(made, **changes)


def test_a_clip_can_be_watched_and_another_version_looks_different(tmp_path: Path) -> None:
    told: list[JobProgress] = []
    done = sample_job.run(job(tmp_path / "a"), told.append)
    clip = read_clip(Path(done.clip_path))
    frames = MODEL.clip.frames
    assert clip.shape == (frames, 256, 256, 3)
    assert done.caption == "caption 0"
    assert told[-1].step == told[-1].total == MODEL.recipe.sample_steps
    again = sample_job.run(job(tmp_path / "b"), told.append)
    assert Path(again.clip_path).read_bytes() == Path(done.clip_path).read_bytes()
    other = sample_job.run(job(tmp_path / "c", seed=2), told.append)
    assert Path(other.clip_path).read_bytes() != Path(done.clip_path).read_bytes()


def test_the_most_frequent_caption_is_taken() -> None:
    shard = make_shard(MODEL, 5, seed=0)
    shard.caption_index[:] = [0, 1, 1, 0, 1]
    assert sample_job.most_frequent_caption(shard) == 1


def test_latents_are_no_clips_and_it_says_so(tmp_path: Path) -> None:
    vae = VaeSpec(
        class_name="AutoencoderKLWan", frame_step=4, pixel_step=8, mean=[0.0] * 3, std=[1.0] * 3
    )
    latent = structs.replace(MODEL, clip=structs.replace(MODEL.clip, codec="vae"), vae=vae)
    with pytest.raises(LocalError, match="made of pixels only"):
        sample_job.run(job(tmp_path, model=latent), lambda progress: None)
