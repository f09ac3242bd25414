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
    account: str
    """Whose credit it is: the account that the machine counted for at that moment, or the machine itself."""


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
    by_account: dict[PeerId, dict[PeerId, float]] = field(default_factory=dict)
    """What an account's machines earned for it, by machine; a machine without an account is its own."""
    verified: dict[PeerId, float] = field(default_factory=dict)
    """By account: credit that an audit stands for. The rest is pending, and is taken back when an audit fails."""
    _covered: set[LeaseId] = field(default_factory=set)
    _accounts: dict[PeerId, ev.MachineDelegated] = field(default_factory=dict)
    """Whom each delegated machine counts for now."""
    _orders: dict[LeaseId, TrainOrder] = field(default_factory=dict)
    _credited: dict[LeaseId, CreditEntry] = field(default_factory=dict)

    def total_flops(self) -> float:
        """Of everybody's credit."""
        return sum(self.by_peer.values())

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
            case ev.RunsCompared(covered=covered):
                self._cover(covered)
            case ev.MachineDelegated():
                self._accounts[event.peer] = event
            case ev.MachineReleased():
                self._release(event)
            case _:
                return

    def pending(self, account: PeerId) -> float:
        """Credit of an account that no audit stands for yet."""
        return sum(self.by_account.get(account, {}).values()) - self.verified.get(account, 0.0)

    def _cover(self, lease_ids: Iterable[LeaseId]) -> None:
        for lease_id in lease_ids:
            entry = self._credited.get(lease_id)
            if entry is not None and lease_id not in self._covered:
                self._covered.add(lease_id)
                self._verify(entry, 1)

    def _verify(self, entry: CreditEntry, sign: int) -> None:
        account = PeerId(entry.account)
        self.verified[account] = self.verified.get(account, 0.0) + sign * entry.flops

    def _release(self, event: ev.MachineReleased) -> None:
        held = self._accounts.get(event.peer)
        if held is not None and held.account == event.account and held.serial <= event.serial:
            del self._accounts[event.peer]

    def _account_of(self, peer: PeerId) -> PeerId:
        held = self._accounts.get(peer)
        return held.account if held is not None else peer

    def _decide(
        self, lease_id: LeaseId, peer: PeerId, accepted: bool, at_ms: int, why: str
    ) -> None:
        """Credit an accepted segment once; take it back when it is refused later."""
        order = self._orders.get(lease_id)
        before = self._credited.get(lease_id)
        if order is None or accepted == (before is not None):
            return
        sign = 1 if accepted else -1
        account = PeerId(before.account) if before else self._account_of(peer)
        entry = CreditEntry(
            at_ms=at_ms,
            peer=peer,
            lease_id=lease_id,
            cluster=order.cluster,
            steps=order.steps,
            flops=sign * order.steps * self.step_flops,
            reason=why,
            account=account,
        )
        self.entries.append(entry)
        self.by_peer[peer] = self.by_peer.get(peer, 0.0) + entry.flops
        machines = self.by_account.setdefault(account, {})
        machines[peer] = machines.get(peer, 0.0) + entry.flops
        if accepted:
            self._credited[lease_id] = entry
        elif before is not None:
            del self._credited[lease_id]
            if lease_id in self._covered:
                self._covered.discard(lease_id)
                self._verify(before, -1)


def ledger_of(events: Iterable[ev.Event], step_flops: float) -> Ledger:
    """The ledger of a whole log."""
    ledger = Ledger(step_flops)
    for event in events:
        ledger.apply(event)
    return ledger
