"""A self test: does this machine compute what every other one does, and how fast is it? Owns the known answer.

A tiny expert takes three training steps from a fixed seed; its losses must be the known ones within a relative 1e-3 on
the CPU (rounding differs in the sixth digit between kernels) and 5e-2 in bfloat16 on a GPU.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from kinoswarm_model.data.shards import Shard
from kinoswarm_model.data.text import TextBatch
from kinoswarm_model.experts import build_expert
from kinoswarm_model.jobs import JobProgress, SelfTestDone, SelfTestJob
from kinoswarm_model.memory import device_memory_bytes, device_name
from kinoswarm_model.noise import Purpose, stream
from kinoswarm_model.presets import preset
from kinoswarm_model.segment import expert_losses, optimizer_settings
from kinoswarm_model.training import Trainer
from kinoswarm_model.training_data import BatchPlan, ClipSet, Drawing, training_batch
from kinoswarm_protocol.specs import ModelSpec

KNOWN_LOSSES: Sequence[float] = (0.690103, 0.817025, 0.936992)
_CPU_TOLERANCE = 1e-3
_GPU_TOLERANCE = 5e-2
_TIMED_STEPS = 3
_SEED = 1


def run(job: SelfTestJob, report: Callable[[JobProgress], None]) -> SelfTestDone:
    """The known-answer steps on the tiny preset, then the time of a step of this swarm's model."""
    device = torch.device(job.device)
    losses = known_answer_losses(device)
    report(JobProgress(job_id=job.job_id, step=1, total=2, loss=losses[-1], what="known answer"))
    sentence = compare(losses, _GPU_TOLERANCE if device.type == "cuda" else _CPU_TOLERANCE)
    return SelfTestDone(
        ok=not sentence,
        sentence=sentence or "this machine computes the known answer",
        seconds_per_step=seconds_per_step(job.model, job.batch_size, job.seed, device),
        device_name=device_name(device),
        memory_bytes=device_memory_bytes(device),
    )


def known_answer_losses(device: torch.device) -> list[float]:
    """Losses of three steps of the tiny preset on made-up clips."""
    model = preset("tiny", frames=4, height=16, width=16, num_clusters=2).model
    return _train(model, model.recipe.batch_size, _SEED, len(KNOWN_LOSSES), device)[0]


def compare(losses: Sequence[float], tolerance: float) -> str:
    """An empty text when the losses are the known ones, else a sentence that says what came out."""
    for step, (found, known) in enumerate(zip(losses, KNOWN_LOSSES, strict=True)):
        if not abs(found - known) <= tolerance * known:
            return (
                f"training step {step} gave a loss of {found:.6f}, expected {known:.6f}: memory or driver is faulty; "
                "check for overclocking and overheating, then update the driver"
            )
    return ""


def seconds_per_step(model: ModelSpec, batch_size: int, seed: int, device: torch.device) -> float:
    """Median time of an optimizer step of this model, after one step of warm-up."""
    seconds = _train(model, batch_size, seed, 1 + _TIMED_STEPS, device)[1]
    return sorted(seconds[1:])[_TIMED_STEPS // 2]


def made_up_shard(model: ModelSpec, count: int, seed: int) -> Shard:
    """Clips and texts of seeded noise in this model's geometry."""
    clip, text = model.clip, model.text
    generator = stream(seed, Purpose.SELF_TEST)
    shape = (count, clip.channels, clip.frames, clip.height, clip.width)
    tokens = generator.standard_normal((count, text.max_tokens, text.dim), dtype=np.float32)
    return Shard(
        clips=generator.integers(0, 256, size=shape, dtype=np.uint8),
        caption_index=np.arange(count, dtype=np.int32),
        text=TextBatch(
            tokens=(0.3 * tokens).astype(np.float16),
            mask=np.ones((count, text.max_tokens), dtype=np.uint8),
            pooled=(0.3 * tokens[:, 0]).astype(np.float16),
        ),
        captions=[f"caption {index}" for index in range(count)],
    )


def _train(
    model: ModelSpec, batch_size: int, seed: int, steps: int, device: torch.device
) -> tuple[list[float], list[float]]:
    """Losses and seconds of every step."""
    clips = ClipSet([made_up_shard(model, min(batch_size, 16), seed)], model)
    drawing = Drawing(purpose=Purpose.SELF_TEST, text_dropout=model.recipe.text_dropout)
    plan = BatchPlan(seed=seed, batch_size=batch_size, drawing=drawing)
    expert = build_expert(model, seed=seed)
    trainer = Trainer(
        expert,
        lambda batch: expert_losses(expert, batch, model.recipe),
        optimizer_settings(model.recipe, steps),
        device,
    )
    losses, seconds = [], []
    for step in range(steps):
        started = time.perf_counter()
        losses.append(trainer.train_step(training_batch(clips, plan, step)))
        seconds.append(time.perf_counter() - started)
    return losses, seconds
