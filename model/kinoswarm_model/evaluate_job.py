"""An evaluate job: what each contribution would do to the base on private held-out clips. Owns no verdict.

Where the order asks for it, also what it does to another cluster's clips, and whether it learnt the samples that its
lease assigned. A delta that can't be used is reported with its wire code, never raised: the other deltas are judged all
the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kinoswarm_model.checkpoints import NotFinite, read_checkpoint
from kinoswarm_model.delta import Delta, applied, read_delta
from kinoswarm_model.experts import Expert, build_expert, tensor_shapes
from kinoswarm_model.flops import expert_flops
from kinoswarm_model.jobs import (
    AssignedSegment,
    DeltaReport,
    EvaluateDone,
    EvaluateJob,
    JobProgress,
    PairedLoss,
)
from kinoswarm_model.own_work import OwnSamples, losses_beside
from kinoswarm_model.paired_loss import Triples, losses_of_batch, losses_of_weights, paired
from kinoswarm_model.training_data import Batch, ClipSet
from kinoswarm_protocol.errors import Code, RemoteError

Weights = dict[str, Tensor]


def run(job: EvaluateJob, report: Callable[[JobProgress], None]) -> EvaluateDone:
    """Judge every delta on the same triples."""
    bench = Bench.of(job)
    segments = job.segments or [None] * len(job.delta_paths)
    reports = []
    for number, (path, segment) in enumerate(zip(job.delta_paths, segments, strict=True), start=1):
        reports.append(bench.judge(Path(path), segment))
        report(_progress(job, number))
    return EvaluateDone(reports=reports, flops=bench.forwards * expert_flops(job.model))


@dataclass
class Bench:
    """A base with its losses, and the expert on which all weights are tried; `forwards` counts its passes."""

    job: EvaluateJob
    expert: Expert
    base: Weights
    own: Triples
    foreign: Triples | None
    clips: ClipSet | None
    """Of the cluster, where somebody asks what was learnt of them."""
    forwards: int = 0

    def __post_init__(self) -> None:
        self._own_base_B = self._losses(self.base, self.own)
        self._foreign_base_B = self._losses(self.base, self.foreign) if self.foreign else None

    @classmethod
    def of(cls, job: EvaluateJob) -> "Bench":
        """Read base and clips, and measure the base."""
        own = Triples(ClipSet.read([job.heldout_path], job.model), job.pairs, job.seed)
        foreign = None
        if job.foreign_heldout_path is not None and job.probes:
            theirs = ClipSet.read([job.foreign_heldout_path], job.model)
            foreign = Triples(theirs, job.probes, job.seed)
        asks = job.probes and any(segment is not None for segment in job.segments)
        return cls(
            job=job,
            expert=build_expert(job.model, seed=0),
            base=read_checkpoint(Path(job.base_path), tensor_shapes(job.model)),
            own=own,
            foreign=foreign,
            clips=ClipSet.read(job.shard_paths, job.model) if asks else None,
        )

    def judge(self, path: Path, segment: AssignedSegment | None) -> DeltaReport:
        """One delta file. Raises LocalError when it is missing."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.base.items()}
        try:
            return self.measured(read_delta(path, shapes), segment)
        except RemoteError as error:
            return DeltaReport(code=str(error.code), problem=str(error), norm=0.0, loss=None)

    def measured(self, delta: Delta, segment: AssignedSegment | None) -> DeltaReport:
        """One delta. Raises NotFinite."""
        norm, candidate = delta.norm(), applied(self.base, delta)
        candidate_B = self._losses(candidate, self.own)
        if not bool(candidate_B.isfinite().all()) or not norm < float("inf"):
            raise NotFinite("with this delta the model's held-out loss is not finite")
        return DeltaReport(
            code=str(Code.ACCEPTED),
            problem="",
            norm=norm,
            loss=paired(self._own_base_B, candidate_B),
            foreign=self._on_foreign(candidate, segment),
            assigned=self._on_assigned(candidate, segment),
        )

    def _on_foreign(self, candidate: Weights, segment: AssignedSegment | None) -> PairedLoss | None:
        if segment is None or self.foreign is None or self._foreign_base_B is None:
            return None
        return _finite(self._foreign_base_B, self._losses(candidate, self.foreign))

    def _on_assigned(
        self, candidate: Weights, segment: AssignedSegment | None
    ) -> PairedLoss | None:
        if self.clips is None or segment is None:
            return None
        samples = OwnSamples(self.clips, segment, self.job.probes, self.job.seed)
        before = losses_beside(samples, self._losses_with(self.base))
        return _finite(before, losses_beside(samples, self._losses_with(candidate)))

    def _losses(self, weights: Weights, triples: Triples) -> Tensor:
        self.forwards += len(triples)
        job, device = self.job, torch.device(self.job.device)
        return losses_of_weights(self.expert, weights, triples, device, job.model, job.objective)

    def _losses_with(self, weights: Weights) -> Callable[[Batch], Tensor]:
        job, device = self.job, torch.device(self.job.device)
        self.expert.network.load_state_dict(weights)
        self.expert.to(device).eval()

        def losses(batch: Batch) -> Tensor:
            self.forwards += len(batch)
            return losses_of_batch(self.expert, batch, device, job.model, job.objective)

        return losses


def _finite(base_B: Tensor, candidate_B: Tensor) -> PairedLoss | None:
    """None where a loss is not a number: there is nothing to say then."""
    return paired(base_B, candidate_B) if bool(candidate_B.isfinite().all()) else None


def _progress(job: EvaluateJob, number: int) -> JobProgress:
    return JobProgress(
        job_id=job.job_id, step=number, total=len(job.delta_paths), loss=None, what="evaluating"
    )
