"""The ledger of credit: what every accepted segment was worth, in FLOPs that the coordinator can count itself. Pure.

A node's own figure is never taken: a lease fixes the steps, and the charter's seed training fixes what a step costs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec import Struct

from kinoswarm_coordinator import events as ev
from kinoswarm_protocol.charter import Charter
from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.messages import TrainOrder


class CreditEntry(Struct, frozen=True, kw_only=True):
    """One line of the ledger."""

    at_ms: int
    peer: str
    lease_id: str
    cluster: int
    steps: int
    flops: float
    """Negative when credit was taken back."""
    reason: str


def flops_per_step(charter: Charter) -> float:
    """What one optimizer step at the recipe's batch costs, by the charter's own account of its seed training."""
    return charter.seed_flops / max(1, charter.seed_steps)


def flops_per_sample(charter: Charter) -> float:
    """The same for one sample."""
    return flops_per_step(charter) / charter.model.recipe.batch_size


@dataclass
class Ledger:
    """A fold of the event log; anybody with the log gets the same lines."""

    step_flops: float
    entries: list[CreditEntry] = field(default_factory=list)
    by_peer: dict[PeerId, float] = field(default_factory=dict)
    _orders: dict[LeaseId, TrainOrder] = field(default_factory=dict)
    _credited: dict[LeaseId, CreditEntry] = field(default_factory=dict)

    def apply(self, event: ev.Event) -> None:
        """Follow one event."""
        match event:
            case ev.LeaseIssued(lease=lease) if isinstance(lease.order, TrainOrder):
                self._orders[LeaseId(lease.lease_id)] = lease.order
            case ev.VerdictGiven(at_ms=at_ms, verdict=verdict):
                self._decide(
                    LeaseId(verdict.lease_id),
                    PeerId(verdict.node),
                    verdict.state == "accepted",
                    at_ms,
                    verdict.sentence,
                )
            case _:
                return

    def _decide(
        self, lease_id: LeaseId, peer: PeerId, accepted: bool, at_ms: int, why: str
    ) -> None:
        """Credit an accepted segment once; take it back when it is refused later."""
        order = self._orders.get(lease_id)
        before = self._credited.get(lease_id)
        if order is None or accepted == (before is not None):
            return
        sign = 1 if accepted else -1
        entry = CreditEntry(
            at_ms=at_ms,
            peer=peer,
            lease_id=lease_id,
            cluster=order.cluster,
            steps=order.steps,
            flops=sign * order.steps * self.step_flops,
            reason=why,
        )
        self.entries.append(entry)
        self.by_peer[peer] = self.by_peer.get(peer, 0.0) + entry.flops
        if accepted:
            self._credited[lease_id] = entry
        else:
            del self._credited[lease_id]


def ledger_of(events: Iterable[ev.Event], step_flops: float) -> Ledger:
    """The ledger of a whole log."""
    ledger = Ledger(step_flops)
    for event in events:
        ledger.apply(event)
    return ledger
