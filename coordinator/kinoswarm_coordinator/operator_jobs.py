"""Trusted leases to worker jobs, and what workers did to outcomes. Owns the paths of the operator's machine."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.state import Rules
from kinoswarm_model.jobs import (
    AssignedSegment,
    Candidate,
    CompareDone,
    CompareJob,
    Done,
    EvaluateDone,
    EvaluateJob,
    Job,
    MergeDelta,
    MergeDone,
    MergeJob,
    PairedLoss,
    ReleaseDone,
    ReleaseJob,
    RouteDone,
    RouteJob,
    TrainDone,
    TrainJob,
)
from kinoswarm_network.client import NetworkClient
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MAX_SENTENCE
from kinoswarm_protocol.messages import (
    AccuracyAt,
    AssignedSamples,
    CompareOrder,
    CompareOutcome,
    DeltaDistance,
    DeltaJudgement,
    EvaluateOrder,
    EvaluateOutcome,
    ExpertRef,
    Lease,
    LossShift,
    MergeOrder,
    MergeOutcome,
    Order,
    Outcome,
    ReleaseFile,
    ReleaseOrder,
    ReleaseOutcome,
    RouteOrder,
    RouteOutcome,
    TrainOrder,
    TrainOutcome,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """Where the operator's worker finds and leaves things."""

    folder: SwarmFolder
    rules: Rules
    network: NetworkClient
    threads: int
    device: str
    credited_flops: Callable[[], float]
    """Of all training up to now: the model card states it."""

    async def job_of(self, lease: Lease) -> Job:
        """The job of a trusted lease; every path exists. Raises LocalError when a blob is gone from the store."""
        match lease.order:
            case EvaluateOrder():
                return await self._evaluate(lease.lease_id, lease.order)
            case CompareOrder():
                return await self._compare(lease.lease_id, lease.order)
            case MergeOrder():
                return await self._merge(lease.lease_id, lease.order)
            case RouteOrder():
                return await self._route(lease.lease_id, lease.order)
            case ReleaseOrder():
                return await self._release(lease.lease_id, lease.order)
            case TrainOrder():
                return await self._train(lease.lease_id, lease.order)

    async def _evaluate(self, job_id: str, order: EvaluateOrder) -> Job:
        return EvaluateJob(
            job_id=job_id,
            model=self.rules.charter.model,
            work_dir=self._work_dir(job_id),
            device=self.device,
            threads=self.threads,
            base_path=await self._path(order.base),
            delta_paths=[await self._path(delta) for delta in order.deltas],
            heldout_path=str(self.folder.heldout(order.cluster)),
            pairs=order.pairs,
            seed=order.seed,
            objective=self.rules.charter.clusters[order.cluster].objective,
            segments=[_segment(assigned) for assigned in order.assigned],
            shard_paths=await self._shards(order.cluster) if order.assigned else [],
            foreign_heldout_path=(
                str(self.folder.heldout(order.foreign)) if order.foreign is not None else None
            ),
            probes=order.probes,
        )

    async def _train(self, job_id: str, order: TrainOrder) -> Job:
        """A volunteer's segment once more, so that runs of it that differ can be judged."""
        charter = self.rules.charter
        return TrainJob(
            job_id=job_id,
            model=charter.model,
            work_dir=self._work_dir(job_id),
            device=self.device,
            threads=self.threads,
            shard_paths=await self._shards(order.cluster),
            steps=order.steps,
            batch_size=order.batch_size,
            seed=order.seed,
            base_path=await self._path(order.base),
            objective=charter.clusters[order.cluster].objective,
            mode=order.mode,
            delta_codec=charter.policy.delta_codec,
        )

    async def _shards(self, cluster: int) -> list[str]:
        return [
            await self._path(shard.blob) for shard in self.rules.charter.clusters[cluster].shards
        ]

    async def _compare(self, job_id: str, order: CompareOrder) -> Job:
        return CompareJob(
            job_id=job_id,
            model=self.rules.charter.model,
            work_dir=self._work_dir(job_id),
            device=self.device,
            threads=self.threads,
            delta_paths=[await self._path(delta) for delta in order.deltas],
        )

    async def _merge(self, job_id: str, order: MergeOrder) -> Job:
        deltas = [
            MergeDelta(
                path=await self._path(delta.delta), weight=delta.weight, key=delta.contribution
            )
            for delta in order.deltas
        ]
        return MergeJob(
            job_id=job_id,
            model=self.rules.charter.model,
            work_dir=self._work_dir(job_id),
            device=self.device,
            threads=self.threads,
            base_path=await self._path(order.base),
            deltas=deltas,
            outer_rate=order.outer_rate,
            outer_momentum=order.outer_momentum,
            momentum_path=await self._momentum(order.momentum),
            norm_clip=order.norm_clip,
            heldout_path=str(self.folder.heldout(order.cluster)),
            pairs=order.pairs,
            seed=order.seed,
            objective=self.rules.charter.clusters[order.cluster].objective,
            freshness=order.freshness,
        )

    async def _route(self, job_id: str, order: RouteOrder) -> Job:
        clusters = self.rules.charter.clusters
        return RouteJob(
            job_id=job_id,
            model=self.rules.charter.model,
            work_dir=self._work_dir(job_id),
            device=self.device,
            threads=self.threads,
            shard_paths_by_cluster=[await self._shards(index) for index in range(len(clusters))],
            heldout_paths=[str(self.folder.heldout(index)) for index in range(len(clusters))],
            steps=order.steps,
            seed=order.seed,
        )

    async def _release(self, job_id: str, order: ReleaseOrder) -> Job:
        charter = self.rules.charter
        return ReleaseJob(
            job_id=job_id,
            model=charter.model,
            work_dir=self._work_dir(job_id),
            device=self.device,
            threads=self.threads,
            swarm_name=charter.name,
            version=order.version,
            experts=[await self._candidate(expert) for expert in order.experts],
            standing=[await self._candidate(expert) for expert in order.standing],
            heldout_paths=[
                str(self.folder.heldout(index)) for index in range(len(charter.clusters))
            ],
            pairs=order.pairs,
            margin=order.margin,
            cluster_labels=[cluster.label for cluster in charter.clusters],
            objectives=[cluster.objective for cluster in charter.clusters],
            router_path=await self._path(order.router),
            text_encoder_dir=None,
            vae_dir=str(self.folder.vae) if charter.model.vae is not None else None,
            prompts=list(order.prompts),
            seed=order.seed,
            licence=charter.licences.release,
            seed_flops=charter.seed_flops,
            expert_flops=self.credited_flops(),
        )

    async def _candidate(self, expert: ExpertRef) -> Candidate:
        return Candidate(
            cluster=expert.cluster,
            version=expert.version,
            path=await self._path(expert.checkpoint),
            lineage=expert.lineage,
        )

    async def outcome_of(self, lease: Lease, done: Done) -> Outcome:
        """What the worker did, with its files in the store."""
        match done:
            case EvaluateDone():
                return _judgements(lease.order, done)
            case CompareDone():
                return _distances(done)
            case MergeDone():
                return await self._merged(done)
            case RouteDone():
                return await self._routed(done)
            case ReleaseDone():
                return await self._released(lease.order, done)
            case TrainDone():
                return await self._trained(done)
            case _:
                raise LocalError(f"the worker answered with {type(done).__name__}")

    async def _trained(self, done: TrainDone) -> TrainOutcome:
        if not done.is_finite:
            raise LocalError("the training gave numbers that are not finite")
        path = Path(done.output_path)
        size = path.stat().st_size
        return done.outcome(await self._add(path), size)

    async def _merged(self, done: MergeDone) -> MergeOutcome:
        momentum = await self._add(Path(done.momentum_path)) if done.momentum_path else None
        step = Path(done.step_path)
        return MergeOutcome(
            checkpoint=await self._add(Path(done.checkpoint_path)),
            momentum=momentum,
            base_loss=done.loss.base,
            difference=done.loss.difference,
            standard_error=done.loss.standard_error,
            flops=done.flops,
            step=await self._add(step),
            step_bytes=step.stat().st_size,
            restarted=done.restarted,
        )

    async def _routed(self, done: RouteDone) -> RouteOutcome:
        return RouteOutcome(
            router=await self._add(Path(done.router_path)),
            accuracy_by_t=[AccuracyAt(t=t, accuracy=value) for t, value in done.accuracy_by_t],
            calibration_error=done.calibration_error,
            share_by_cluster=list(done.share_by_cluster),
            flops=done.flops,
        )

    async def _released(self, order: Order, done: ReleaseDone) -> ReleaseOutcome:
        root = Path(done.release_dir)
        files = [
            ReleaseFile(
                path=name,
                blob=await self._add(root / name),
                size_bytes=(root / name).stat().st_size,
            )
            for name in sorted(done.files)
        ]
        assert isinstance(order, ReleaseOrder)
        offered = {
            (expert.cluster, expert.lineage, expert.version): expert
            for expert in [*order.experts, *order.standing]
        }
        return ReleaseOutcome(
            files=files,
            share_by_expert=list(done.share_by_expert),
            experts=[
                offered[expert.cluster, expert.lineage, expert.version] for expert in done.chosen
            ],
            held_back=[sentence[:MAX_SENTENCE] for sentence in done.held_back],
        )

    async def _add(self, path: Path) -> BlobId:
        blob = await self.network.add_blob(path)
        await self.network.pin(blob)
        return blob

    async def _momentum(self, blob: str | None) -> str | None:
        """None where it is gone, as from a backup of an older program: the outer optimizer begins anew."""
        path = await self.network.blob_path(BlobId(blob)) if blob is not None else None
        if blob is not None and path is None:
            _log.warning(
                "momentum %s… is gone from the store; this merge begins without", blob[:12]
            )
        return str(path) if path is not None else None

    async def _path(self, blob: BlobId) -> str:
        path = await self.network.blob_path(blob)
        if path is None:
            raise LocalError(f"blob {blob[:12]}… is gone from the store; restore it from a backup")
        return str(path)

    def work_dir(self, job_id: str) -> Path:
        """The job's own folder."""
        return self.folder.work / job_id

    def _work_dir(self, job_id: str) -> str:
        path = self.work_dir(job_id)
        path.mkdir(parents=True, exist_ok=True)
        return str(path)


def _segment(assigned: AssignedSamples | None) -> AssignedSegment | None:
    if assigned is None:
        return None
    return AssignedSegment(seed=assigned.seed, steps=assigned.steps, batch_size=assigned.batch_size)


def _shift(loss: PairedLoss | None) -> LossShift | None:
    if loss is None:
        return None
    return LossShift(difference=loss.difference, standard_error=loss.standard_error)


def _judgements(order: object, done: EvaluateDone) -> EvaluateOutcome:
    assert isinstance(order, EvaluateOrder)
    nothing = PairedLoss(base=0.0, candidate=0.0, difference=0.0, standard_error=0.0, num_pairs=0)
    judgements = [
        DeltaJudgement(
            delta=delta,
            code=report.code,
            problem=report.problem[:MAX_SENTENCE],
            norm=report.norm,
            base_loss=(report.loss or nothing).base,
            difference=(report.loss or nothing).difference,
            standard_error=(report.loss or nothing).standard_error,
            on_assigned=_shift(report.assigned),
            on_foreign=_shift(report.foreign),
        )
        for delta, report in zip(order.deltas, done.reports, strict=True)
    ]
    return EvaluateOutcome(judgements=judgements, flops=done.flops)


def _distances(done: CompareDone) -> CompareOutcome:
    return CompareOutcome(
        distances=[
            DeltaDistance(
                first=pair.first,
                second=pair.second,
                distance=pair.distance,
                cosine=pair.cosine,
            )
            for pair in done.distances
        ]
    )
