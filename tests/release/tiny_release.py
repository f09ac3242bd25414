"""A release job of the tiny preset with freshly initialised weights, for the tests of this folder and evaluation."""

from pathlib import Path

import torch

from kinoswarm_model.checkpoints import weights_of, write_checkpoint
from kinoswarm_model.experts import build_expert
from kinoswarm_model.jobs import Candidate, JobProgress, ReleaseDone, ReleaseJob
from kinoswarm_model.presets import preset
from kinoswarm_model.release_job import run
from kinoswarm_model.router import build_router
from kinoswarm_protocol.specs import ModelSpec

NUM_EXPERTS = 2
PROMPTS = ["a long corridor", "a torch on a brown wall"]


def tiny_model() -> ModelSpec:
    """Clips of 4 frames at 32x32."""
    return preset("tiny", frames=4, height=32, width=32, num_clusters=NUM_EXPERTS).model


def write_weights(folder: Path) -> tuple[list[Path], Path]:
    """Checkpoints of two different experts and a router; outputs are shaken so that clips are not plain grey."""
    model = tiny_model()
    experts = [folder / f"expert-{k}.safetensors" for k in range(NUM_EXPERTS)]
    for k, path in enumerate(experts):
        weights = weights_of(build_expert(model, seed=k).network)
        generator = torch.Generator().manual_seed(k)
        for name in ("proj_out.weight", "proj_out.bias"):
            weights[name] = torch.randn(weights[name].shape, generator=generator) * 0.1
        write_checkpoint(path, weights)
    router = folder / "router.safetensors"
    write_checkpoint(router, weights_of(build_router(model, NUM_EXPERTS, seed=9)))
    return experts, router


def tiny_job(folder: Path, **changes: object) -> ReleaseJob:
    """A release job whose checkpoints lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    experts, router = write_weights(folder)
    fields: dict[str, object] = {
        "job_id": "release-1",
        "model": tiny_model(),
        "work_dir": str(folder / "work"),
        "swarm_name": "Calm places",
        "version": 3,
        "experts": [
            Candidate(cluster=cluster, version=2 - cluster, path=str(path))
            for cluster, path in enumerate(experts)
        ],
        "cluster_labels": ["brown corridor", "outside | sky"],
        "router_path": str(router),
        "text_encoder_dir": None,
        "prompts": PROMPTS,
        "seed": 11,
        "licence": "Data: BSD-3-Clause. Weights: Apache-2.0.",
    }
    return ReleaseJob(**{**fields, **changes})  # type: ignore[arg-type]


def write_tiny_release(folder: Path, **changes: object) -> tuple[ReleaseDone, list[JobProgress]]:
    """Run the job and collect its progress."""
    progress: list[JobProgress] = []
    return run(tiny_job(folder, **changes), progress.append), progress
