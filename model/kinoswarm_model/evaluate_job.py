"""An evaluate job: what each contribution would do to the base on private held-out clips. Owns no verdict.

A delta that can't be used is reported with its wire code, never raised: the other deltas are judged all the same.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kinoswarm_model.checkpoints import NotFinite, read_checkpoint
from kinoswarm_model.delta import Delta, applied, read_delta
from kinoswarm_model.experts import build_expert, tensor_shapes
from kinoswarm_model.flops import expert_flops
from kinoswarm_model.jobs import DeltaReport, EvaluateDone, EvaluateJob, JobProgress
from kinoswarm_model.paired_loss import Triples, losses_of_weights, paired
from kinoswarm_model.training_data import ClipSet
from kinoswarm_protocol.errors import Code, RemoteError

LossesOfWeights = Callable[[dict[str, Tensor]], Tensor]


def run(job: EvaluateJob, report: Callable[[JobProgress], None]) -> EvaluateDone:
    """Judge every delta on the same triples."""
    device = torch.device(job.device)
    base = read_checkpoint(Path(job.base_path), tensor_shapes(job.model))
    triples = Triples(ClipSet.read([job.heldout_path], job.model), job.pairs, job.seed)
    expert = build_expert(job.model, seed=0)

    def losses(weights: dict[str, Tensor]) -> Tensor:
        return losses_of_weights(expert, weights, triples, device, job.model)

    base_losses_B = losses(base)
    reports = []
    for number, path in enumerate(job.delta_paths, start=1):
        reports.append(_judge(Path(path), base, base_losses_B, losses))
        report(_progress(job, number))
    measured = 1 + sum(entry.loss is not None for entry in reports)
    return EvaluateDone(reports=reports, flops=measured * len(triples) * expert_flops(job.model))


def _judge(
    path: Path, base: dict[str, Tensor], base_losses_B: Tensor, losses: LossesOfWeights
) -> DeltaReport:
    shapes = {name: tuple(tensor.shape) for name, tensor in base.items()}
    try:
        delta = read_delta(path, shapes)
        return _measure(delta, base, base_losses_B, losses)
    except RemoteError as error:
        return DeltaReport(code=str(error.code), problem=str(error), norm=0.0, loss=None)


def _measure(
    delta: Delta, base: dict[str, Tensor], base_losses_B: Tensor, losses: LossesOfWeights
) -> DeltaReport:
    norm = delta.norm()
    candidate_losses_B = losses(applied(base, delta))
    if not bool(candidate_losses_B.isfinite().all()) or not norm < float("inf"):
        raise NotFinite("with this delta the model's held-out loss is not finite")
    loss = paired(base_losses_B, candidate_losses_B)
    return DeltaReport(code=str(Code.ACCEPTED), problem="", norm=norm, loss=loss)


def _progress(job: EvaluateJob, number: int) -> JobProgress:
    return JobProgress(
        job_id=job.job_id, step=number, total=len(job.delta_paths), loss=None, what="evaluating"
    )
