"""A merge job: files in, a checked new version out. Owns reading, writing, the paired test; merge.py the arithmetic."""

from collections.abc import Callable
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
from kinoswarm_model.version_steps import stepped


def run(job: MergeJob, report: Callable[[JobProgress], None]) -> MergeDone:
    """Merge, write the step, the checkpoint (and the momentum), then test it against the base on held-out triples."""
    shapes = tensor_shapes(job.model)
    base = read_checkpoint(Path(job.base_path), shapes)
    merged = merged_of(job, base, shapes)
    folder = Path(job.work_dir)
    step, weights = stepped(job, base, merged.weights, shapes)
    checkpoint = folder / "checkpoint.safetensors"
    write_checkpoint(checkpoint, weights)
    report(JobProgress(job_id=job.job_id, step=1, total=2, loss=None, what="merged"))
    loss = _tested(job, base, weights)
    return MergeDone(
        checkpoint_path=str(checkpoint),
        momentum_path=_write_momentum(folder, merged),
        step_path=str(step),
        loss=loss,
        flops=2 * job.pairs * expert_flops(job.model),
    )


def merged_of(job: MergeJob, base: dict[str, Tensor], shapes: Shapes) -> Merged:
    """Read the deltas and momentum and take the outer step."""
    contributions = [
        Contribution(key=entry.key, weight=entry.weight, delta=read_delta(Path(entry.path), shapes))
        for entry in job.deltas
    ]
    momentum = None
    if job.momentum_path is not None:
        momentum = read_checkpoint(Path(job.momentum_path), shapes)
    settings = OuterSettings(
        rate=job.outer_rate, momentum=job.outer_momentum, norm_clip=job.norm_clip
    )
    return merge(base, contributions, settings, momentum)


def _tested(job: MergeJob, base: dict[str, Tensor], new: dict[str, Tensor]) -> PairedLoss:
    device = torch.device(job.device)
    triples = Triples(ClipSet.read([job.heldout_path], job.model), job.pairs, job.seed)
    expert = build_expert(job.model, seed=0)
    before, after = (
        losses_of_weights(expert, weights, triples, device, job.model, job.objective)
        for weights in (base, new)
    )
    return paired(before, after)


def _write_momentum(folder: Path, merged: Merged) -> str | None:
    if merged.momentum is None:
        return None
    path = folder / "momentum.safetensors"
    write_checkpoint(path, merged.momentum)
    return str(path)
