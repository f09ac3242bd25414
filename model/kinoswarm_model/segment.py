"""A train job from its files to its output: one segment on a base, or the common seed without one.

Owns what is trained and written; the loop is job_loop.py's, the steps training.py's, the data training_data.py's.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import msgspec
from torch import Tensor

from kinoswarm_model.checkpoints import (
    BadTensors,
    read_checkpoint,
    weights_of,
    write_checkpoint,
)
from kinoswarm_model.delta import read_delta, write_delta
from kinoswarm_model.delta_codecs import codec_of
from kinoswarm_model.devices import named_device
from kinoswarm_model.experts import Expert, build_expert, tensor_shapes
from kinoswarm_model.flops import TRAIN_FACTOR, expert_flops
from kinoswarm_model.flow import losses_of
from kinoswarm_model.job_loop import LoopPlan, Report, forget_resume_points, train_to_end
from kinoswarm_model.jobs import TrainDone, TrainJob
from kinoswarm_model.modes import prepare_for, settings_for, trained_weights
from kinoswarm_model.noise import Purpose
from kinoswarm_model.pretrained import load_pretrained
from kinoswarm_model.resume_points import SavePolicy
from kinoswarm_model.training import (
    OptimizerSettings,
    Trainer,
    checkpoint_activations,
    ends_mean,
    uses_checkpoints,
)
from kinoswarm_model.training_data import Batch, BatchPlan, ClipSet, Drawing
from kinoswarm_model.wan_forward import compile_blocks
from kinoswarm_protocol import codec
from kinoswarm_protocol.specs import Objective, RecipeSpec


def run(job: TrainJob, report: Report) -> TrainDone:
    """Train, resuming where a killed worker stopped; the outputs appear atomically under `work_dir`.

    Resume points stay beside a delta until its taker removes the folder: the taker may be killed before it has it.
    """
    clips = ClipSet.read(job.shard_paths, job.model)
    expert, base = starting_point(job)
    started_from = weights_of(expert.network) if base is None else base
    trainer = expert_trainer(expert, job)
    plan = _loop_plan(job)
    result = train_to_end(plan, trainer, clips, report)
    output, norm = _write_output(job, base, trained_weights(expert.network, job.mode, started_from))
    if base is None:  # whoever trains a common seed takes a checkpoint that lies there
        forget_resume_points(plan)
    first, last = ends_mean(result.losses)
    samples = job.steps * job.batch_size
    return TrainDone(
        output_path=str(output),
        steps=job.steps,
        samples=samples,
        loss_first=first,
        loss_last=last,
        delta_norm=norm,
        seconds=result.seconds,
        flops=samples * TRAIN_FACTOR * expert_flops(job.model),
        micro_batch=trainer.micro_batch or job.batch_size,
        checkpoint_activations=uses_checkpoints(expert.network),
    )


def starting_point(job: TrainJob) -> tuple[Expert, dict[str, Tensor] | None]:
    """The expert to train, and the base's weights; without a base a fresh or pretrained expert."""
    expert = build_expert(job.model, seed=job.seed)
    if job.base_path is None:
        if job.pretrained_dir is not None:
            load_pretrained(expert.network, Path(job.pretrained_dir))
        return expert, None
    base = read_checkpoint(Path(job.base_path), tensor_shapes(job.model))
    expert.network.load_state_dict(base)
    return expert, base


def expert_trainer(expert: Expert, job: TrainJob) -> Trainer:
    """The optimizer loop of a segment, before its first step."""
    recipe, device = job.model.recipe, named_device(job.device)
    prepare_for(expert.network, job.mode, job.seed, device, job.precision)
    if job.checkpoint_activations:
        checkpoint_activations(expert.network)
    if job.compile_network:
        compile_blocks(expert.network)
    return Trainer(
        expert,
        lambda batch: expert_losses(expert, batch, recipe, job.objective),
        settings_for(
            job.mode, replace(optimizer_settings(recipe, job.steps), precision=job.precision)
        ),
        device,
        job.micro_batch,
    )


def expert_losses(
    expert: Expert, batch: Batch, recipe: RecipeSpec, objective: Objective = "velocity"
) -> Tensor:
    """Loss of every clip of a batch, shape (B,)."""
    prediction = expert(batch.x_t_BCTHW, batch.t_B, batch.text_tokens_BLD, batch.text_mask_BL)
    return losses_of(prediction, batch.x_0_BCTHW, batch.eps_BCTHW, batch.t_B, recipe, objective)


def optimizer_settings(recipe: RecipeSpec, steps: int) -> OptimizerSettings:
    """The recipe's AdamW over a segment of `steps`."""
    return OptimizerSettings(
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_steps,
        total_steps=steps,
        weight_decay=recipe.weight_decay,
        betas=(recipe.beta_1, recipe.beta_2),
        grad_clip=recipe.grad_clip,
    )


def batch_plan(job: TrainJob) -> BatchPlan:
    """The segment's batches."""
    drawing = Drawing(purpose=Purpose.TRAIN, text_dropout=job.model.recipe.text_dropout)
    return BatchPlan(seed=job.seed, batch_size=job.batch_size, drawing=drawing)


def job_sha256(job: TrainJob) -> str:
    """Hash of everything that decides the result: a resume point of any other job is not used."""
    same = msgspec.structs.replace(
        job,
        job_id="",
        work_dir="",
        threads=0,
        micro_batch=0,
        resume_every_s=0.0,
        resume_bytes_per_day=0.0,
        checkpoint_activations=False,
        compile_network=False,
        steps_per_progress=0,
        device="",
    )
    return hashlib.sha256(codec.encode(same)).hexdigest()


def _loop_plan(job: TrainJob) -> LoopPlan:
    return LoopPlan(
        job_id=job.job_id,
        work_dir=Path(job.work_dir),
        job_sha256=job_sha256(job),
        what="training",
        steps=job.steps,
        batches=batch_plan(job),
        saving=SavePolicy(least_s=job.resume_every_s, bytes_per_day=job.resume_bytes_per_day),
        steps_per_progress=job.steps_per_progress,
    )


def _write_output(
    job: TrainJob, base: dict[str, Tensor] | None, weights: dict[str, Tensor]
) -> tuple[Path, float]:
    folder = Path(job.work_dir)
    if base is None:
        path = folder / "checkpoint.safetensors"
        write_checkpoint(path, weights)
        return path, 0.0
    path = folder / "delta.zst"
    write_delta(path, base, weights, codec_of(job.delta_codec))
    shapes = {name: tuple(tensor.shape) for name, tensor in base.items()}
    norm = read_delta(path, shapes).norm()
    if norm == 0.0:
        raise BadTensors("the segment changed nothing: a learning rate of zero, or no steps")
    return path, norm
