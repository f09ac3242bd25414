"""What a run is counted by: time, work, FLOPs, bytes. Owns the sums; decides nothing."""

from collections import Counter, defaultdict
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
    TrainOrder,
)


@dataclass
class Books:
    """Sums of a run."""

    worked_ms: dict[LeaseId, float] = field(default_factory=dict)
    """On-time that a volunteer gave a train lease, until it ended or the run did."""
    available_ms: float = 0.0
    """On-time of honest volunteers."""
    leases: Counter[str] = field(default_factory=Counter)
    """Issued, by purpose."""
    forwards: Counter[str] = field(default_factory=Counter)
    """Samples' forward passes charged, by purpose; training costs three a sample."""
    days: list[Counter[str]] = field(default_factory=list)
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
                self.forwards["merge"] += 2 * pairs
            case CompareOrder():
                self.forwards["compare"] += 0
            case _:
                return

    def close_day(self) -> None:
        """A day is over."""
        self.days.append(Counter(self.forwards))

    @property
    def verification_share(self) -> float:
        """Forward passes of audits, evaluations and merge tests, against those of training."""
        return _checks_share(self.forwards)

    @property
    def verification_by_day(self) -> list[float]:
        """The same, of each whole day: the first is full of newcomers."""
        pairs = pairwise([Counter[str](), *self.days])
        return [_checks_share(after - before) for before, after in pairs]


def _checks_share(forwards: Counter[str]) -> float:
    checks = sum(forwards[name] for name in ("audit", "evaluate", "merge", "compare"))
    return checks / max(1, forwards["train"])
