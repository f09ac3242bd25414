"""Whole small swarms through the worker's own jobs: prepared data in, a release folder out. Owns nothing tested."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from kinoswarm_model.data.data_manifest import DataManifest
from kinoswarm_model.jobs import (
    Candidate,
    EvaluateDone,
    EvaluateJob,
    Job,
    ReleaseDone,
    ReleaseJob,
    RouteDone,
    RouteJob,
    TrainDone,
    TrainJob,
)
from kinoswarm_model.presets import Geometry, preset_for
from kinoswarm_model.worker_jobs import compute
from kinoswarm_protocol.specs import ModelSpec


@dataclass(frozen=True)
class SmallSwarm:
    """What a small swarm made."""

    model: ModelSpec
    release: Path
    judged: EvaluateDone
    trained: TrainDone


def model_for(manifest: DataManifest) -> ModelSpec:
    """The tiny preset for this data, with a router that trains for a moment."""
    clip = manifest.clip_spec()
    geometry = Geometry(
        frames=clip.frames,
        height=clip.height,
        width=clip.width,
        fps=clip.fps,
        num_clusters=len(manifest.clusters),
        vae=manifest.vae,
    )
    model = preset_for("tiny", geometry).model
    router = msgspec.structs.replace(model.router, steps=4, batch_size=4)
    return msgspec.structs.replace(model, router=router)


def run_small_swarm(data: Path, manifest: DataManifest, work: Path) -> SmallSwarm:
    """Common seed, one segment, its judgement, a router, a release."""
    model = model_for(manifest)
    shards = [[str(data / shard.path) for shard in c.shards] for c in manifest.clusters]
    heldout = [str(data / c.heldout.path) for c in manifest.clusters]

    def done(job: Job) -> object:
        Path(job.work_dir).mkdir(parents=True, exist_ok=True)
        return compute(job, lambda progress: None)

    def train(name: str, base: str | None) -> TrainDone:
        result = done(
            TrainJob(
                job_id=name,
                model=model,
                work_dir=str(work / name),
                shard_paths=shards[0],
                steps=4,
                batch_size=4,
                seed=3,
                base_path=base,
            )
        )
        assert isinstance(result, TrainDone)
        return result

    seed = train("seed", None)
    segment = train("segment", seed.output_path)
    judged = done(
        EvaluateJob(
            job_id="judge",
            model=model,
            work_dir=str(work / "judge"),
            base_path=seed.output_path,
            delta_paths=[segment.output_path],
            heldout_path=heldout[0],
            pairs=4,
            seed=1,
        )
    )
    assert isinstance(judged, EvaluateDone)
    routed = done(
        RouteJob(
            job_id="route",
            model=model,
            work_dir=str(work / "route"),
            shard_paths_by_cluster=shards,
            heldout_paths=heldout,
            steps=4,
            seed=1,
        )
    )
    assert isinstance(routed, RouteDone)
    release = done(
        ReleaseJob(
            job_id="release",
            model=model,
            work_dir=str(work / "release"),
            swarm_name="small",
            version=1,
            experts=[
                Candidate(cluster=cluster, version=0, path=seed.output_path)
                for cluster in range(len(shards))
            ],
            cluster_labels=[c.label for c in manifest.clusters],
            router_path=routed.router_path,
            text_encoder_dir=None,
            prompts=["a red wall"],
            seed=1,
            licence="none",
            vae_dir=str(data / "vae") if manifest.vae else None,
        )
    )
    assert isinstance(release, ReleaseDone)
    return SmallSwarm(model, Path(release.release_dir), judged, segment)
