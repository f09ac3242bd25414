"""A route job: train the router on all clusters' shards, balance it, measure it on held-out clips. Owns the order.

The router does not depend on the experts, so it trains alongside them, on trusted data by trusted workers.
Shapes: B batch, K clusters.
"""

import hashlib
from pathlib import Path

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from kinoswarm_model.checkpoints import read_checkpoint, weights_of, write_checkpoint
from kinoswarm_model.flops import TRAIN_FACTOR, router_flops
from kinoswarm_model.job_loop import LoopPlan, Report, forget_resume_points, train_to_end
from kinoswarm_model.jobs import RouteDone, RouteJob
from kinoswarm_model.noise import Purpose
from kinoswarm_model.resume_points import SavePolicy
from kinoswarm_model.router import Router, build_router, grown_router, router_shapes
from kinoswarm_model.router_figures import MEASURED_TIMES, measured_router, probabilities_at
from kinoswarm_model.routing import balancing_bias
from kinoswarm_model.training import OptimizerSettings, Trainer
from kinoswarm_model.training_data import Batch, BatchPlan, ClipSet, Drawing, order
from kinoswarm_protocol import codec
from kinoswarm_protocol.errors import LocalError

_WARMUP_STEPS = 20
_BALANCED_CLIPS = 1_024
_HEAD_BATCH = 64
_HEAD_ITERATIONS = 50
_HEAD_RIDGE = 1e-3
_WEIGHT_DECAY = 0.01


def run(job: RouteJob, report: Report) -> RouteDone:
    """Train (resumable), write router.safetensors, measure."""
    num_clusters = len(job.shard_paths_by_cluster)
    clips = ClipSet.read_clusters(job.shard_paths_by_cluster, job.model)
    heldout = ClipSet.read_clusters([[path] for path in job.heldout_paths], job.model)
    if len(job.heldout_paths) != num_clusters:
        raise LocalError(
            f"{len(job.heldout_paths)} held-out files for {num_clusters} clusters; one each is needed"
        )
    router = _starting_point(job, num_clusters, clips)
    plan = _loop_plan(job)
    train_to_end(plan, _trainer(router, job), clips, report)
    balance(router, clips, job)
    path = Path(job.work_dir) / "router.safetensors"
    write_checkpoint(path, weights_of(router))
    forget_resume_points(plan)
    return _measured(router, job, heldout, path, num_clusters)


def _starting_point(job: RouteJob, num_clusters: int, clips: ClipSet) -> Router:
    if job.base_path is None:
        return build_router(job.model, num_clusters, seed=job.seed)
    weights = read_checkpoint(Path(job.base_path), router_shapes(job.model, job.base_clusters))
    router = grown_router(weights, job.model, job.base_clusters, num_clusters)
    fit_head(router, clips, job)
    return router


def fit_head(router: Router, clips: ClipSet, job: RouteJob) -> None:
    """Fit the head alone, by logistic regression on what the rest of the router already sees.

    It costs one look at a thousand clips. Without it the first thirty steps or so only find out that there are
    new clusters.
    """
    with torch.no_grad():
        features_NM, label_N = _features(router, clips, job)
    solver = torch.optim.LBFGS(router.head.parameters(), max_iter=_HEAD_ITERATIONS)

    def loss() -> Tensor:
        solver.zero_grad()
        value = functional.cross_entropy(router.head(features_NM), label_N)
        value = value + _HEAD_RIDGE * router.head.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    solver.zero_grad()


def _features(router: Router, clips: ClipSet, job: RouteJob) -> tuple[Tensor, Tensor]:
    """What the head sees of some training clips at uniform times, and their clusters; on the job's device."""
    device = torch.device(job.device)
    router.to(device).eval()
    indices = order(job.seed, len(clips), 0, min(len(clips), _BALANCED_CLIPS))
    drawing = Drawing(
        purpose=Purpose.ROUTE, text_dropout=job.model.router.text_dropout, uniform_t=True
    )
    rows, labels = [], []
    for start in range(0, len(indices), _HEAD_BATCH):
        some = indices[start : start + _HEAD_BATCH]
        draws = drawing.draw(job.seed, [(index,) for index in some], clips.model)
        batch = clips.batch(some, draws).part(0, len(some), device)
        rows.append(router.features(batch.x_t_BCTHW, batch.t_B, batch.text_pooled_BD))
        labels.append(batch.label_B)
    return torch.cat(rows), torch.cat(labels)


@torch.no_grad()
def balance(router: Router, clips: ClipSet, job: RouteJob) -> None:
    """Shift the head's biases so that no expert is picked beyond the charter's cap, judged on training clips.

    Without it a router that collapses onto one expert would leave the others' work unused.
    """
    cap, experts = job.model.router.share_cap, router.head.out_features
    if not cap or experts == 1:
        return
    indices = order(job.seed, len(clips), 0, min(len(clips), _BALANCED_CLIPS))
    device = torch.device(job.device)
    rows = [probabilities_at(router, clips, t, job.seed, device, indices) for t in MEASURED_TIMES]
    bias_K = balancing_bias(torch.cat(rows).clamp_min(1e-9).log(), cap / experts)
    router.head.bias.add_(bias_K.to(device))


def _measured(
    router: Router, job: RouteJob, heldout: ClipSet, path: Path, num_clusters: int
) -> RouteDone:
    figures = measured_router(router, heldout, job.seed, torch.device(job.device))
    measured = len(MEASURED_TIMES) * len(heldout)
    trained = TRAIN_FACTOR * job.steps * job.model.router.batch_size
    return RouteDone(
        router_path=str(path),
        accuracy_by_t=figures.accuracy_by_t,
        calibration_error=figures.calibration_error,
        share_by_cluster=figures.share_by_cluster,
        flops=(measured + trained) * router_flops(job.model, num_clusters),
    )


def _trainer(router: Router, job: RouteJob) -> Trainer:
    recipe, spec = job.model.recipe, job.model.router
    settings = OptimizerSettings(
        learning_rate=spec.learning_rate,
        warmup_steps=min(_WARMUP_STEPS, job.steps),
        total_steps=job.steps,
        weight_decay=_WEIGHT_DECAY,
        betas=(recipe.beta_1, recipe.beta_2),
        grad_clip=recipe.grad_clip,
    )
    return Trainer(router, lambda batch: _losses(router, batch), settings, torch.device(job.device))


def _losses(router: Router, batch: Batch) -> Tensor:
    logits_BK = router(batch.x_t_BCTHW, batch.t_B, batch.text_pooled_BD)
    return functional.cross_entropy(logits_BK.float(), batch.label_B, reduction="none")


def _loop_plan(job: RouteJob) -> LoopPlan:
    spec = job.model.router
    drawing = Drawing(purpose=Purpose.ROUTE, text_dropout=spec.text_dropout, uniform_t=True)
    return LoopPlan(
        job_id=job.job_id,
        work_dir=Path(job.work_dir),
        job_sha256=_job_sha256(job),
        what="training the router",
        steps=job.steps,
        batches=BatchPlan(seed=job.seed, batch_size=spec.batch_size, drawing=drawing),
        saving=SavePolicy(least_s=job.resume_every_s),
        steps_per_progress=max(1, job.steps // 20),
    )


def _job_sha256(job: RouteJob) -> str:
    same = msgspec.structs.replace(
        job, job_id="", work_dir="", threads=0, resume_every_s=0.0, device=""
    )
    return hashlib.sha256(codec.encode(same)).hexdigest()
