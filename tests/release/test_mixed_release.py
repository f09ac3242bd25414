"""A swarm of a dark and a bright cluster, the bright one trained on the noise: from the common seed to clips."""

import json
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from release.prepared import route, write_prepared
from release.tiny_release import tiny_job, tiny_model

from kinoswarm_model import merge_job, release_job, segment
from kinoswarm_model.clip_sampling import sample_clips, text_on
from kinoswarm_model.data.shards import read_shard
from kinoswarm_model.jobs import (
    Candidate,
    JobProgress,
    MergeDelta,
    MergeDone,
    MergeJob,
    ReleaseJob,
    TrainDone,
    TrainJob,
)
from kinoswarm_model.pipeline import RoutedVideoPipeline
from kinoswarm_model.release_layout import INFO, decode_info, encode_info, read_info
from kinoswarm_model.release_reader import open_release
from kinoswarm_model.sampler import settings_of
from kinoswarm_protocol.errors import MalformedBytes
from kinoswarm_protocol.specs import Objective

MODEL = tiny_model()
OBJECTIVES: list[Objective] = ["velocity", "epsilon"]
BRIGHTNESS = (50, 150)
"""Means of the two clusters' clips; the mean of noise is 127."""


def ignore(progress: JobProgress) -> None:
    pass


@dataclass(frozen=True)
class MixedSwarm:
    """What the loop made."""

    data: Path
    release: Path
    merges: list[MergeDone]


def train(work: Path, shards: list[str], steps: int, **changes: object) -> TrainDone:
    fields: dict[str, object] = {
        "job_id": "t",
        "model": MODEL,
        "work_dir": str(work),
        "shard_paths": shards,
        "steps": steps,
        "batch_size": 8,
        "seed": 3,
    }
    return segment.run(TrainJob(**{**fields, **changes}), ignore)  # type: ignore[arg-type]


def merged(work: Path, base: str, delta: str, heldout: str, objective: Objective) -> MergeDone:
    job = MergeJob(
        job_id="m",
        model=MODEL,
        work_dir=str(work),
        base_path=base,
        deltas=[MergeDelta(path=delta, weight=1.0, key="a")],
        outer_rate=1.0,
        outer_momentum=0.0,
        momentum_path=None,
        norm_clip=0.0,
        heldout_path=heldout,
        pairs=32,
        seed=1,
        objective=objective,
    )
    return merge_job.run(job, ignore)


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> MixedSwarm:
    folder = tmp_path_factory.mktemp("mixed")
    data = write_prepared(folder / "data", [0, 1])
    shards = [str(data / f"shards/{k}.safetensors") for k in range(2)]
    base = train(folder / "seed", shards, steps=12).output_path
    merges = []
    for k, objective in enumerate(OBJECTIVES):
        delta = train(
            folder / f"segment-{k}", [shards[k]], steps=24, base_path=base, objective=objective
        ).output_path
        heldout = str(data / f"heldout/{k}.safetensors")
        merges.append(merged(folder / f"merge-{k}", base, delta, heldout, objective))
    job: ReleaseJob = tiny_job(
        folder / "release",
        experts=[
            Candidate(cluster=k, version=1, path=done.checkpoint_path)
            for k, done in enumerate(merges)
        ],
        objectives=OBJECTIVES,
        router_path=route(folder, [0, 1]).router_path,
        prompts=[],
    )
    return MixedSwarm(data, Path(release_job.run(job, ignore).release_dir), merges)


def test_both_experts_get_better_at_what_they_are_trained_on(swarm: MixedSwarm) -> None:
    for done in swarm.merges:
        assert done.loss.difference < -2 * done.loss.standard_error


def test_the_release_says_what_each_expert_was_trained_on(swarm: MixedSwarm) -> None:
    written = json.loads((swarm.release / INFO).read_text())["experts"]
    assert "objective" not in written[0]
    assert written[1]["objective"] == "epsilon"
    assert [expert.objective for expert in read_info(swarm.release).experts] == OBJECTIVES
    card = (swarm.release / "README.md").read_text()
    assert "| 0 | brown corridor | 1 | the velocity |" in card
    assert "| 1 | outside   sky | 1 | the noise (" in card


@pytest.mark.parametrize("top_k", [1, 2])
def test_each_experts_clips_come_from_its_part_of_the_data(swarm: MixedSwarm, top_k: int) -> None:
    """A clip of noise has a mean of 127, and its pixels lie about 80 from a flat clip of the right brightness."""
    settings = msgspec.structs.replace(MODEL.recipe, guidance=1.0, top_k=top_k)
    routed = open_release(swarm.release).routed()
    for k, brightness in enumerate(BRIGHTNESS):
        text = text_on(read_shard(swarm.data / f"shards/{k}.safetensors").text, torch.device("cpu"))
        made = sample_clips(routed, text, [1, 2, 3], settings_of(settings), batch_size=3)
        assert abs(float(made.clips.mean()) - brightness) < 25
        off = made.clips.astype(np.float64) - brightness
        assert float(np.sqrt(np.square(off).mean())) < 50
        assert made.share_by_expert[k] > 0.9


def test_the_pipeline_draws_with_and_without_guidance(swarm: MixedSwarm) -> None:
    pipe = RoutedVideoPipeline.from_pretrained(swarm.release)
    pipe.set_progress_bar_config(disable=True)
    for guidance in (1.0, 4.0):
        frames = pipe(["dark", "bright"], guidance_scale=guidance, num_inference_steps=4).frames
        assert frames.shape == (2, 4, 32, 32, 3)
        assert bool(np.isfinite(frames).all())


def test_a_release_from_before_objectives_is_of_velocity_and_an_unknown_one_is_refused(
    release_dir: Path, swarm: MixedSwarm
) -> None:
    assert b"objective" not in (release_dir / INFO).read_bytes()
    old = decode_info((release_dir / INFO).read_bytes())
    assert {expert.objective for expert in old.experts} == {"velocity"}
    raw = encode_info(read_info(swarm.release))
    with pytest.raises(MalformedBytes, match=r"kinoswarm.json is damaged: .*'score'"):
        decode_info(raw.replace(b'"epsilon"', b'"score"'))
