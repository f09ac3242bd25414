"""A merge job: files in, a checked new version out. Owns reading, writing, the paired test; merge.py the arithmetic.

A step that does not lower the held-out loss is tried anew without momentum, the function scheme of adaptive restart
(O'Donoghue and Candès 2012, arXiv 1204.3982, section 3.2), and shortened by the staleness of its deltas, as in FedAsync
(arXiv 1903.03934): the gentler step stands where it is better, and is the momentum's new beginning. Else honest work
would be set aside for an overshoot of the outer optimizer. Shortening every stale step was slower (docs/lab-notes.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kinoswarm_model.checkpoints import Shapes, read_checkpoint, write_checkpoint
from kinoswarm_model.delta import read_delta
from kinoswarm_model.experts import build_expert, tensor_shapes
from kinoswarm_model.flops import expert_flops
from kinoswarm_model.jobs import JobProgress, MergeDone, MergeJob, PairedLoss
from kinoswarm_model.merge import Contribution, Merged, OuterSettings, merge
from kinoswarm_model.paired_loss import Triples, losses_of_weights, paired
from kinoswarm_model.training_data import ClipSet
from kinoswarm_model.version_steps import after_step, coded_step

_PLAIN = (1.0, 0.0)
"""Outer rate and momentum of the plain mean."""


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """What could be the next version, on disk."""

    checkpoint: Path
    momentum: Path | None
    step: Path
    loss: PairedLoss


def run(job: MergeJob, report: Callable[[JobProgress], None]) -> MergeDone:
    """Merge, write the step, the checkpoint (and the momentum), then test it against the base on held-out triples."""
    shapes = tensor_shapes(job.model)
    base = read_checkpoint(Path(job.base_path), shapes)
    merging = _Merging(job, base, shapes)
    candidate = merging.ordered()
    report(JobProgress(job_id=job.job_id, step=1, total=2, loss=None, what="merged"))
    restarted = False
    if merging.has_gentler and not candidate.loss.difference < 0.0:  # NaN is no improvement
        gentler = merging.gentler()
        restarted = not candidate.loss.difference <= gentler.loss.difference
        candidate = gentler if restarted else candidate
    return MergeDone(
        checkpoint_path=str(candidate.checkpoint),
        momentum_path=str(candidate.momentum) if candidate.momentum is not None else None,
        step_path=str(candidate.step),
        loss=candidate.loss,
        flops=merging.num_tested * job.pairs * expert_flops(job.model),
        restarted=restarted,
    )


class _Merging:
    """The deltas of a job, and the losses of its base, which are computed once."""

    def __init__(self, job: MergeJob, base: dict[str, Tensor], shapes: Shapes) -> None:
        self._job, self._base, self._shapes = job, base, shapes
        self._triples = Triples(ClipSet.read([job.heldout_path], job.model), job.pairs, job.seed)
        self._expert = build_expert(job.model, seed=0)
        self.num_tested = 0
        """Weights that were tested."""
        self._before = self._losses(base)

    @property
    def has_gentler(self) -> bool:
        """Whether the plain mean is another step than the one ordered; a single delta is taken as it is anyway."""
        job = self._job
        is_plain = len(job.deltas) == 1 or (job.outer_rate, job.outer_momentum) == _PLAIN
        return not is_plain or job.freshness < 1.0

    def ordered(self) -> _Candidate:
        """The step that the order asks for; of a single contribution, its very delta."""
        job = self._job
        settings = OuterSettings(
            rate=job.outer_rate, momentum=job.outer_momentum, norm_clip=job.norm_clip
        )
        as_it_is = Path(job.deltas[0].path) if len(job.deltas) == 1 else None
        return self._candidate(settings, Path(job.work_dir), as_it_is)

    def gentler(self) -> _Candidate:
        """The plain mean, shortened by staleness; the momentum is forgotten."""
        job, (rate, momentum) = self._job, _PLAIN
        settings = OuterSettings(
            rate=rate, momentum=momentum, norm_clip=job.norm_clip, freshness=job.freshness
        )
        return self._candidate(settings, Path(job.work_dir) / "gentler", None)

    def _candidate(self, settings: OuterSettings, folder: Path, step: Path | None) -> _Candidate:
        """Written before it is tested, so that one candidate at a time is in memory."""
        folder.mkdir(parents=True, exist_ok=True)
        merged = merged_of(self._job, self._base, self._shapes, settings)
        step = step or coded_step(folder, self._base, merged.weights)
        weights = after_step(self._base, step, self._shapes)
        checkpoint = folder / "checkpoint.safetensors"
        write_checkpoint(checkpoint, weights)
        momentum = _write_momentum(folder, merged.momentum)
        loss = paired(self._before, self._losses(weights))
        return _Candidate(checkpoint=checkpoint, momentum=momentum, step=step, loss=loss)

    def _losses(self, weights: dict[str, Tensor]) -> Tensor:
        self.num_tested += 1
        job, device = self._job, torch.device(self._job.device)
        return losses_of_weights(
            self._expert, weights, self._triples, device, job.model, job.objective
        )


def merged_of(
    job: MergeJob, base: dict[str, Tensor], shapes: Shapes, settings: OuterSettings
) -> Merged:
    """Read the deltas and momentum and take the outer step."""
    contributions = [
        Contribution(key=entry.key, weight=entry.weight, delta=read_delta(Path(entry.path), shapes))
        for entry in job.deltas
    ]
    momentum = None
    if job.momentum_path is not None and settings.momentum:
        momentum = read_checkpoint(Path(job.momentum_path), shapes)
    return merge(base, contributions, settings, momentum)


def _write_momentum(folder: Path, momentum: dict[str, Tensor] | None) -> Path | None:
    if momentum is None:
        return None
    path = folder / "momentum.safetensors"
    write_checkpoint(path, momentum)
    return path
