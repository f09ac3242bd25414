"""The loop that trainings share: batches, resume points, progress. Owns it for segments and for the router."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kinoswarm_model.checkpoints import NotFinite
from kinoswarm_model.jobs import JobProgress
from kinoswarm_model.resume_points import ResumePoint, ResumeStore
from kinoswarm_model.training import Trainer
from kinoswarm_model.training_data import BatchPlan, ClipSet, prefetched

Report = Callable[[JobProgress], None]


@dataclass(frozen=True, kw_only=True)
class LoopPlan:
    """What a training does and how often it is saved and reported."""

    job_id: str
    work_dir: Path
    job_sha256: str
    """Hash of everything that decides the result; a resume point of any other job is not used."""
    what: str
    steps: int
    batches: BatchPlan
    resume_every_s: float
    steps_per_progress: int


@dataclass(frozen=True, kw_only=True)
class LoopResult:
    """Loss of every step and the seconds spent, over all restarts."""

    losses: list[float]
    seconds: float


def train_to_end(plan: LoopPlan, trainer: Trainer, clips: ClipSet, report: Report) -> LoopResult:
    """Train until `steps`, from the newest resume point if there is one. Raises NotFinite when the loss is."""
    store = ResumeStore(plan.work_dir, plan.job_sha256)
    losses, seconds_before = _resume(trainer, store)
    started = saved = time.monotonic()
    for batch in prefetched(clips, plan.batches, range(trainer.step, plan.steps)):
        losses.append(trainer.train_step(batch))
        _check_loss(losses[-1], trainer.step)
        now = time.monotonic()
        if now - saved >= plan.resume_every_s and trainer.step < plan.steps:
            seconds = seconds_before + now - started
            store.save(_point(trainer, losses, seconds))
            saved = time.monotonic()
        if trainer.step % plan.steps_per_progress == 0 or trainer.step == plan.steps:
            report(_progress(plan, trainer.step, losses))
    return LoopResult(losses=losses, seconds=seconds_before + time.monotonic() - started)


def forget_resume_points(plan: LoopPlan) -> None:
    """Once the output is safely on disk."""
    ResumeStore(plan.work_dir, plan.job_sha256).clear()


def _resume(trainer: Trainer, store: ResumeStore) -> tuple[list[float], float]:
    point = store.load()
    if point is None:
        return [], 0.0
    trainer.restore(point.tensors, point.step)
    return list(point.losses), point.seconds


def _point(trainer: Trainer, losses: list[float], seconds: float) -> ResumePoint:
    return ResumePoint(step=trainer.step, losses=losses, seconds=seconds, tensors=trainer.state())


def _progress(plan: LoopPlan, step: int, losses: list[float]) -> JobProgress:
    recent = losses[-plan.steps_per_progress :]
    mean = sum(recent) / len(recent)
    return JobProgress(job_id=plan.job_id, step=step, total=plan.steps, loss=mean, what=plan.what)


def _check_loss(loss: float, step: int) -> None:
    if not loss < float("inf"):
        raise NotFinite(
            f"the loss of step {step} is {loss}: faulty memory, an overheated device or a diverged base; run the self "
            "test, then train again"
        )
