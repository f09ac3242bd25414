"""What a run is counted by: time, work, FLOPs, bytes. Owns the sums; decides nothing."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.state import LineageKey, Rules
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.messages import (
    CompareOrder,
    EvaluateOrder,
    Lease,
    MergeOrder,
    ReleaseOrder,
    RouteOrder,
    TrainOrder,
)

_ROUTER_PASS = 0.034
"""Of an expert's forward pass: the most that a `home-*` preset's router takes (`kinoswarm presets`)."""
_READ = 0.01
"""Of a forward pass, to unpack a delta and measure its distance: a few operations a weight, where a pass of a clip of
hundreds of tokens takes two for each token."""
_MERGE_TESTS = 3
"""Losses that a merge computes at most: of its base, with momentum, and without it where that did no good."""
_GUIDED = 2
"""Forward passes a sampling step."""
_CHECKS = ("audit", "referee", "evaluate", "merge", "compare")


@dataclass
class Books:
    """Sums of a run."""

    worked_ms: dict[LeaseId, float] = field(default_factory=dict)
    """On-time that a volunteer gave a train lease, until it ended or the run did."""
    available_ms: float = 0.0
    """On-time of honest volunteers."""
    leases: Counter[str] = field(default_factory=Counter)
    """Issued, by purpose."""
    forwards: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Samples' forward passes charged, by purpose; training costs three a sample."""
    days: list[dict[str, float]] = field(default_factory=list)
    """Forward passes up to the end of each day."""
    bytes_in: float = 0.0
    bytes_out: float = 0.0
    reissued_ms: list[int] = field(default_factory=list)
    _lost: dict[LineageKey, list[int]] = field(default_factory=lambda: defaultdict(list))
    _orders: dict[LeaseId, Lease] = field(default_factory=dict)

    def follow(self, event: ev.Event, rules: Rules) -> None:
        """Count one event."""
        match event:
            case ev.LeaseIssued():
                self._issued(event, rules)
            case ev.LeaseExpired(lease_id=lease_id) | ev.LeaseFailed(lease_id=lease_id):
                order = self._orders[lease_id].order
                if isinstance(order, TrainOrder):
                    self._lost[order.cluster, order.lineage].append(event.at_ms)
            case _:
                return

    def _issued(self, event: ev.LeaseIssued, rules: Rules) -> None:
        self.leases[event.purpose] += 1
        self._orders[LeaseId(event.lease.lease_id)] = event.lease
        pairs = rules.charter.policy.heldout_pairs
        match event.lease.order:
            case TrainOrder() as order:
                self.forwards[event.purpose] += 3 * order.steps * order.batch_size
                key = (order.cluster, order.lineage)
                if event.purpose == "train" and key in self._lost:
                    self.reissued_ms += [event.at_ms - lost for lost in self._lost.pop(key)]
            case EvaluateOrder() as order:
                self.forwards["evaluate"] += pairs * (1 + len(order.deltas))
                asked = sum(segment is not None for segment in order.assigned)
                self.forwards["evaluate"] += order.probes * (bool(asked) + 5 * asked)
            case MergeOrder():
                self.forwards["merge"] += _MERGE_TESTS * pairs
            case CompareOrder() as order:
                self.forwards["compare"] += _READ * len(order.deltas)
            case RouteOrder() as order:
                batch = rules.charter.model.router.batch_size
                self.forwards["route"] += 3 * _ROUTER_PASS * order.steps * batch
            case ReleaseOrder() as order:
                clips = len(order.prompts) * rules.charter.model.recipe.sample_steps * _GUIDED
                self.forwards["release"] += clips
                self.forwards["release"] += order.pairs * (len(order.experts) + len(order.standing))

    def close_day(self) -> None:
        """A day is over."""
        self.days.append(dict(self.forwards))

    @property
    def verification_share(self) -> float:
        """Forward passes of audits, evaluations and merge tests, against those of training."""
        return _checks_share(self.forwards)

    @property
    def verification_by_day(self) -> list[float]:
        """The same, of each whole day: the first is full of newcomers."""
        return [
            _checks_share({name: sum_ - before.get(name, 0.0) for name, sum_ in after.items()})
            for before, after in pairwise([{}, *self.days])
        ]

    @property
    def charged(self) -> dict[str, float]:
        """FLOPs of every kind of lease, against those of training."""
        training = max(1.0, self.forwards["train"])
        return {name: passes / training for name, passes in sorted(self.forwards.items())}


def _checks_share(forwards: Mapping[str, float]) -> float:
    checks = sum(forwards.get(name, 0.0) for name in _CHECKS)
    return checks / max(1.0, forwards.get("train", 0.0))
