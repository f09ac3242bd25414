"""The loop that trainings share: batches, resume points, progress. Owns it for segments and for the router."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kinoswarm_model.checkpoints import NotFinite
from kinoswarm_model.jobs import JobProgress
from kinoswarm_model.resume_points import ResumePoint, ResumeStore, SavePolicy
from kinoswarm_model.training import Trainer
from kinoswarm_model.training_data import BatchPlan, ClipSet, prefetched
from kinoswarm_protocol.errors import LocalError

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
    saving: SavePolicy
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
    started = time.monotonic()
    saver = _Saver(plan, store, trainer.step, started)
    for batch in prefetched(clips, plan.batches, range(trainer.step, plan.steps)):
        losses.append(trainer.train_step(batch))
        _check_loss(losses[-1], trainer.step)
        now = time.monotonic()
        if trainer.step < plan.steps:
            saver.after_step(trainer, losses, seconds_before + now - started, now)
        if trainer.step % plan.steps_per_progress == 0 or trainer.step == plan.steps:
            report(_progress(plan, trainer.step, losses, saver))
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


class _Saver:
    """Writes resume points when they are due. A disk that can't take one costs that point, not the segment."""

    def __init__(self, plan: LoopPlan, store: ResumeStore, step: int, now_s: float) -> None:
        self._policy = plan.saving
        self._store = store
        self._saved_s = now_s
        self.step = step
        self.every_s = 0.0
        self.problem = ""

    def after_step(
        self, trainer: Trainer, losses: list[float], seconds: float, now_s: float
    ) -> None:
        if not self.every_s and self._policy.bytes_per_day:
            self.every_s = self._policy.every_s(sum(t.nbytes for t in trainer.state().values()))
        if now_s - self._saved_s < (self.every_s or self._policy.least_s):
            return
        tensors = trainer.state()
        point = ResumePoint(step=trainer.step, losses=losses, seconds=seconds, tensors=tensors)
        try:
            self._store.save(point)
        except (OSError, LocalError) as error:
            self.problem = f"no resume point could be written: {error}"
        else:
            self.step, self.problem = trainer.step, ""
        self._saved_s = time.monotonic()


def _progress(plan: LoopPlan, step: int, losses: list[float], saver: _Saver) -> JobProgress:
    recent = losses[-plan.steps_per_progress :]
    return JobProgress(
        job_id=plan.job_id,
        step=step,
        total=plan.steps,
        loss=sum(recent) / len(recent),
        what=plan.what,
        saved_step=saver.step,
        save_every_s=saver.every_s or plan.saving.least_s,
        save_problem=saver.problem,
    )


def _check_loss(loss: float, step: int) -> None:
    if not loss < float("inf"):
        raise NotFinite(
            f"the loss of step {step} is {loss}: faulty memory, an overheated device or a diverged base; run the self "
            "test, then train again"
        )
