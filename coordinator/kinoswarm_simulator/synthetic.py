"""Outcomes of leases without any training: what checks would measure of made-up work. Owns these figures; pure."""

import math
from dataclasses import dataclass, field
from itertools import combinations
from random import Random

from kinoswarm_coordinator.state import Rules
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.messages import (
    AccuracyAt,
    CompareOrder,
    CompareOutcome,
    DeltaDistance,
    DeltaJudgement,
    EvaluateOrder,
    EvaluateOutcome,
    Lease,
    LossShift,
    MergeOrder,
    MergeOutcome,
    Outcome,
    ReleaseFile,
    ReleaseOrder,
    ReleaseOutcome,
    RouteOrder,
    RouteOutcome,
    TrainOrder,
    TrainOutcome,
)
from kinoswarm_simulator.behaviours import HONEST, Work
from kinoswarm_simulator.plan import STEPS_PER_S, blob_of

DELTA_BYTES = 200_000_000
"""About what int4 makes of 350 million weights."""
_BASE_LOSS = 0.5
_GAIN = 0.002
"""Fall of the held-out loss by an honest segment."""
_ERROR = 0.0004
"""Standard error of the paired difference."""
_LEARNT = 3.0
"""Standard errors by which assigned samples fall more than others, in honest work (benchmarks/attacks.py)."""
_HONEST_DISTANCE, _SPREAD = 0.06, 0.35
"""Between honest runs of one order: log-normal, as benchmarks/attacks.py measures it in kind."""


@dataclass
class Truth:
    """What each delta really is; only the measurements below look at it."""

    by_delta: dict[BlobId, Work] = field(default_factory=dict)
    _steps: dict[BlobId, int] = field(default_factory=dict)

    def trained(self, lease: Lease, work: Work, seconds: float) -> TrainOutcome:
        """What a volunteer hands in."""
        order = lease.order
        assert isinstance(order, TrainOrder)
        delta = blob_of(f"delta {lease.lease_id}")
        self.by_delta[delta], self._steps[delta] = work, order.steps
        return TrainOutcome(
            delta=delta,
            delta_bytes=DELTA_BYTES,
            samples=order.steps * order.batch_size,
            steps=order.steps,
            loss_first=_BASE_LOSS,
            loss_last=_BASE_LOSS - _GAIN,
            delta_norm=1.0,
            seconds=seconds,
            flops=0.0,
        )

    def checked(self, rules: Rules, lease: Lease, chance: Random) -> Outcome:
        """What the operator's worker finds."""
        match lease.order:
            case EvaluateOrder() as order:
                assigned = order.assigned or [None] * len(order.deltas)
                judgements = [
                    self._judged(BlobId(delta), segment is not None, chance)
                    for delta, segment in zip(order.deltas, assigned, strict=True)
                ]
                return EvaluateOutcome(judgements=judgements, flops=0.0)
            case CompareOrder() as order:
                return self._compared(order, chance)
            case MergeOrder() as order:
                return self._merged(order, LeaseId(lease.lease_id))
            case TrainOrder():
                return self.trained(lease, HONEST, lease.order.steps / STEPS_PER_S)
            case RouteOrder():
                return _routed(len(rules.charter.clusters))
            case ReleaseOrder() as order:
                file = ReleaseFile(path="model_index.json", blob=blob_of("index"), size_bytes=10)
                newest = {expert.cluster: expert for expert in order.experts}
                return ReleaseOutcome(
                    files=[file], share_by_expert=[], experts=list(newest.values()), held_back=[]
                )
            case _:
                raise AssertionError(
                    f"the operator's worker does not do {type(lease.order).__name__}"
                )

    def _judged(self, delta: BlobId, asked: bool, chance: Random) -> DeltaJudgement:
        work = self.by_delta[delta]
        return DeltaJudgement(
            delta=delta,
            code="accepted",
            problem="",
            norm=work.size * math.sqrt(self._steps[delta]) * math.exp(chance.gauss(0.0, 0.1)),
            base_loss=_BASE_LOSS,
            difference=-work.gain * _GAIN + chance.gauss(0.0, _ERROR),
            standard_error=_ERROR,
            on_assigned=_shift(-_LEARNT * work.learnt, chance) if asked else None,
            on_foreign=_shift(-_LEARNT if work.elsewhere else 0.0, chance) if asked else None,
        )

    def _compared(self, order: CompareOrder, chance: Random) -> CompareOutcome:
        camps = [self.by_delta[BlobId(delta)].camp for delta in order.deltas]
        return CompareOutcome(
            distances=[
                DeltaDistance(
                    first=one,
                    second=other,
                    distance=_distance(camps[one] == camps[other], chance),
                    cosine=None,
                )
                for one, other in combinations(range(len(camps)), 2)
            ]
        )

    def _merged(self, order: MergeOrder, lease_id: LeaseId) -> MergeOutcome:
        weight = sum(delta.weight for delta in order.deltas) or 1.0
        gain = sum(delta.weight * self.by_delta[BlobId(delta.delta)].gain for delta in order.deltas)
        return MergeOutcome(
            checkpoint=blob_of(f"version {lease_id}"),
            momentum=None,
            base_loss=_BASE_LOSS,
            difference=-_GAIN * gain / weight,
            standard_error=_ERROR,
            flops=0.0,
        )


def _shift(mean: float, chance: Random) -> LossShift:
    """A difference of so many standard errors on average."""
    return LossShift(difference=_ERROR * chance.gauss(mean, 1.2), standard_error=_ERROR)


def _distance(alike: bool, chance: Random) -> float:
    if alike:
        return min(1.4, _HONEST_DISTANCE * math.exp(chance.gauss(0.0, _SPREAD)))
    return chance.uniform(0.7, 1.4)


def _routed(num_clusters: int) -> RouteOutcome:
    return RouteOutcome(
        router=blob_of("router"),
        accuracy_by_t=[AccuracyAt(t=0.5, accuracy=0.9)],
        calibration_error=0.05,
        share_by_cluster=[1.0 / num_clusters] * num_clusters,
        flops=0.0,
    )
