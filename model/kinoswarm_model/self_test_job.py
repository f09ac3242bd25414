"""A self test: does this machine compute what every other one does, what fits, how fast is it? Owns the known answer.

A tiny expert takes three training steps from a fixed seed; its losses must be the known ones within a relative 1e-3 in
float32 (rounding differs in the sixth digit between kernels) and 5e-2 where a device trains in bfloat16.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from kinoswarm_model.data.shards import Clips, Shard
from kinoswarm_model.data.text import TextBatch
from kinoswarm_model.devices import (
    device_memory_bytes,
    device_name,
    forget_peak,
    named_device,
    peak_bytes,
    training_dtype,
)
from kinoswarm_model.experts import build_expert
from kinoswarm_model.jobs import FULL, JobProgress, SelfTestDone, SelfTestJob
from kinoswarm_model.modes import is_installed, prepare_for, settings_for
from kinoswarm_model.noise import Purpose, stream
from kinoswarm_model.presets import preset
from kinoswarm_model.segment import expert_losses, optimizer_settings
from kinoswarm_model.training import (
    OutOfMemory,
    Trainer,
    checkpoint_activations,
    is_out_of_memory,
)
from kinoswarm_model.training_data import BatchPlan, ClipSet, Drawing, training_batch
from kinoswarm_protocol.specs import ModelSpec, ModeSpec

KNOWN_LOSSES: Sequence[float] = (0.690103, 0.817025, 0.936992)
_TOLERANCE = 1e-3
_BF16_TOLERANCE = 5e-2
_TIMED_STEPS = 3
_CLEARLY = 0.9
_SEED = 1


def run(job: SelfTestJob, report: Callable[[JobProgress], None]) -> SelfTestDone:
    """The known-answer steps on the tiny preset, then the time of a step of this swarm's model."""
    device = named_device(job.device)
    losses = known_answer_losses(device)
    report(JobProgress(job_id=job.job_id, step=1, total=2, loss=losses[-1], what="known answer"))
    sentence = compare(losses, _tolerance(device))
    best, modes = (None, []) if sentence else best_modes(job, device)
    fits = bool(sentence) or best is not None
    if not fits:
        sentence = (
            "this swarm's model does not fit into this machine's memory, even one clip at a time with activation "
            "checkpointing; a device with more memory would do, or a higher max_vram_gib or max_ram_gib if you set one"
        )
    return SelfTestDone(
        ok=not sentence,
        sentence=sentence or "this machine computes the known answer",
        seconds_per_step=best.seconds_per_step if best else 0.0,
        device_name=device_name(device),
        memory_bytes=device_memory_bytes(device),
        micro_batch=best.fit.micro_batch if best else 0,
        checkpoint_activations=bool(best and best.fit.checkpoint_activations),
        peak_bytes=best.peak_bytes if best else 0,
        modes=modes,
        fits=fits,
    )


def best_modes(job: SelfTestJob, device: torch.device) -> tuple["Measured | None", list[ModeSpec]]:
    """The first of the model's modes that fits this device, measured, and the modes after it, which need no more.

    Founders list modes from the most memory to the least. A mode whose library is missing is left out.
    """
    modes = [mode for mode in job.model.modes if is_installed(mode)]
    for place, mode in enumerate(modes):
        best = best_fit(partial(measure, job, mode, device), job.batch_size)
        if best is not None:
            return best, modes[place:]
    return None, []


class Fit(NamedTuple):
    """How the model is made to fit."""

    micro_batch: int
    checkpoint_activations: bool = False


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A few steps of training on made-up clips."""

    model: ModelSpec
    mode: ModeSpec
    batch_size: int
    seed: int
    fit: Fit


class Measured(NamedTuple):
    """A fit that works: how fast it is, and how much GPU memory it takes at its peak."""

    fit: Fit
    seconds_per_step: float
    peak_bytes: int


def best_fit(measure: Callable[[Fit], Measured | None], batch_size: int) -> Measured | None:
    """The fastest fit, going down from the whole batch until half is no faster; None when nothing fits."""
    best: Measured | None = None
    micro_batch = batch_size
    while micro_batch >= 1:
        found = measure(Fit(micro_batch))
        if best is not None and (found is None or not _is_faster(found, best)):
            return best
        best = found or best
        micro_batch //= 2
    return best or measure(Fit(1, checkpoint_activations=True))


def _is_faster(one: Measured, other: Measured) -> bool:
    """By more than the clock's noise."""
    return one.seconds_per_step < _CLEARLY * other.seconds_per_step


def measure(job: SelfTestJob, mode: ModeSpec, device: torch.device, fit: Fit) -> Measured | None:
    """Train some steps of this swarm's model with `fit`; None when memory runs out."""
    forget_peak(device)
    trial = Trial(model=job.model, mode=mode, batch_size=job.batch_size, seed=job.seed, fit=fit)
    try:
        seconds = seconds_per_step(trial, device)
    except (torch.OutOfMemoryError, RuntimeError, MemoryError, OutOfMemory) as error:
        if not (isinstance(error, OutOfMemory) or is_out_of_memory(error)):
            raise
        return None
    return Measured(fit, seconds, peak_bytes(device))


def known_answer_losses(device: torch.device) -> list[float]:
    """Losses of three steps of the tiny preset on made-up clips."""
    model = preset("tiny", frames=4, height=16, width=16, num_clusters=2).model
    batch_size = model.recipe.batch_size
    trial = Trial(model=model, mode=FULL, batch_size=batch_size, seed=_SEED, fit=Fit(batch_size))
    return _train(trial, len(KNOWN_LOSSES), device)[0]


def _tolerance(device: torch.device) -> float:
    return _BF16_TOLERANCE if training_dtype(device) == torch.bfloat16 else _TOLERANCE


def compare(losses: Sequence[float], tolerance: float) -> str:
    """An empty text when the losses are the known ones, else a sentence that says what came out."""
    for step, (found, known) in enumerate(zip(losses, KNOWN_LOSSES, strict=True)):
        if not abs(found - known) <= tolerance * known:
            return (
                f"training step {step} gave a loss of {found:.6f}, expected {known:.6f}: memory or driver is faulty; "
                "check for overclocking and overheating, then update the driver"
            )
    return ""


def seconds_per_step(trial: "Trial", device: torch.device) -> float:
    """Median time of an optimizer step, after one step of warm-up. Raises when memory runs out."""
    seconds = _train(trial, 1 + _TIMED_STEPS, device)[1]
    return sorted(seconds[1:])[_TIMED_STEPS // 2]


def made_up_shard(model: ModelSpec, count: int, seed: int) -> Shard:
    """Clips and texts of seeded noise in this model's geometry."""
    clip, text = model.clip, model.text
    generator = stream(seed, Purpose.SELF_TEST)
    shape = (count, clip.channels, clip.frames, clip.height, clip.width)
    tokens = generator.standard_normal((count, text.max_tokens, text.dim), dtype=np.float32)
    return Shard(
        clips=_made_up_clips(generator, shape, latents=clip.codec == "vae"),
        caption_index=np.arange(count, dtype=np.int32),
        text=TextBatch(
            tokens=(0.3 * tokens).astype(np.float16),
            mask=np.ones((count, text.max_tokens), dtype=np.uint8),
            pooled=(0.3 * tokens[:, 0]).astype(np.float16),
        ),
        captions=[f"caption {index}" for index in range(count)],
    )


def _made_up_clips(
    generator: np.random.Generator, shape: tuple[int, ...], *, latents: bool
) -> Clips:
    if latents:
        return generator.standard_normal(shape, dtype=np.float32).astype(np.float16)
    return generator.integers(0, 256, size=shape, dtype=np.uint8)


def _train(trial: Trial, steps: int, device: torch.device) -> tuple[list[float], list[float]]:
    """Losses and seconds of every step."""
    model, batch_size, seed, fit = trial.model, trial.batch_size, trial.seed, trial.fit
    clips = ClipSet([made_up_shard(model, min(batch_size, 16), seed)], model)
    drawing = Drawing(purpose=Purpose.SELF_TEST, text_dropout=model.recipe.text_dropout)
    plan = BatchPlan(seed=seed, batch_size=batch_size, drawing=drawing)
    expert = build_expert(model, seed=seed)
    prepare_for(expert.network, trial.mode, seed, device)
    if fit.checkpoint_activations:
        checkpoint_activations(expert.network)
    trainer = Trainer(
        expert,
        lambda batch: expert_losses(expert, batch, model.recipe),
        settings_for(trial.mode, optimizer_settings(model.recipe, steps)),
        device,
        fit.micro_batch,
        adapt=False,
    )
    losses, seconds = [], []
    for step in range(steps):
        started = time.perf_counter()
        losses.append(trainer.train_step(training_batch(clips, plan, step)))
        seconds.append(time.perf_counter() - started)
    return losses, seconds
