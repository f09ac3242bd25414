"""Contributions by lease, with the sums that pages ask for. Owns keeping both equal; decides nothing.

Whatever changes an entry, the sums follow from the difference of old and new: no event can be forgotten here, and a
view of a million contributions costs no more than one of ten.
"""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.messages import Outcome, TrainOutcome, Verdict

WorkPhase = Literal[
    "received", "available", "accepted", "rejected", "quarantined", "merged", "credited"
]
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
_MINUTES = 1_440
COUNTED = ("accepted", "merged", "credited")
"""Phases of good training: in an expert, on its way there, or worth its credit all the same (too late, an audit)."""


class WorkState(Struct, frozen=True, kw_only=True):
    """A contribution on its way to a verdict."""

    lease_id: LeaseId
    node: PeerId
    account: PeerId = PeerId("")
    """Whom the machine counted for when it came in; empty: for itself."""
    outcome: Outcome
    received_at_ms: int
    is_referees: bool = False
    """A run of the operator's own worker: no contribution, so no sum has it, and no verdict comes."""
    phase: WorkPhase = "received"
    verdict: Verdict | None = None
    decided_at_ms: int = 0


@dataclass
class Sums:
    """Over train contributions: how many stand in which phase, and what the accepted ones add up to."""

    accepted: int = 0
    rejected: int = 0
    samples: int = 0

    def add(self, work: WorkState, sign: int) -> None:
        """Add (1) or take away (-1) a decided train contribution."""
        assert isinstance(work.outcome, TrainOutcome)
        if work.phase in COUNTED:
            self.accepted += sign
            self.samples += sign * work.outcome.samples
        else:
            self.rejected += sign


class WorkTable(MutableMapping[LeaseId, WorkState]):
    """A dictionary that also knows counts, hours, decisions, and who sent what."""

    def __init__(self) -> None:
        self._rows: dict[LeaseId, WorkState] = {}
        self.by_phase: dict[str, int] = {}
        """Train contributions by phase."""
        self.by_node: dict[PeerId, list[LeaseId]] = {}
        """Train contributions by sender, oldest first."""
        self.total = Sums()
        self.sums_by_node: dict[PeerId, Sums] = {}
        self.by_hour: dict[int, Sums] = {}
        """Decided train contributions by the hour of the decision (hours since 1970)."""
        self.by_minute: dict[int, Sums] = {}
        """The same by the minute, for about the last day of decisions."""
        self.decisions: list[Verdict] = []
        """Every verdict as it was given, oldest first; a second verdict on one contribution is a second entry."""

    def __getitem__(self, lease_id: LeaseId) -> WorkState:
        return self._rows[lease_id]

    def __contains__(self, lease_id: object) -> bool:
        # MutableMapping's own raises and catches a KeyError for every new one.
        return lease_id in self._rows

    def __iter__(self) -> Iterator[LeaseId]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __setitem__(self, lease_id: LeaseId, work: WorkState) -> None:
        before = self._rows.get(lease_id)
        self._rows[lease_id] = work
        if work.verdict is not None and (before is None or before.verdict != work.verdict):
            self.decisions.append(work.verdict)
        if before is not None:
            self._count(before, -1)
        elif _counts(work):
            self.by_node.setdefault(work.node, []).append(lease_id)
        self._count(work, 1)

    def __delitem__(self, lease_id: LeaseId) -> None:
        work = self._rows.pop(lease_id)
        if _counts(work):
            self.by_node[work.node].remove(lease_id)
        self._count(work, -1)

    def _count(self, work: WorkState, sign: int) -> None:
        if not _counts(work):
            return
        self.by_phase[work.phase] = self.by_phase.get(work.phase, 0) + sign
        if work.verdict is not None:
            self.total.add(work, sign)
            self.sums_by_node.setdefault(work.node, Sums()).add(work, sign)
            self.by_hour.setdefault(work.decided_at_ms // HOUR_MS, Sums()).add(work, sign)
            self._count_minute(work, sign)

    def _count_minute(self, work: WorkState, sign: int) -> None:
        minute = work.decided_at_ms // MINUTE_MS
        if minute not in self.by_minute:
            if sign < 0 or (self.by_minute and minute < next(iter(self.by_minute))):
                return  # older than what is kept
            if len(self.by_minute) >= _MINUTES:
                del self.by_minute[next(iter(self.by_minute))]
            self.by_minute[minute] = Sums()
        self.by_minute[minute].add(work, sign)


def _counts(work: WorkState) -> bool:
    return isinstance(work.outcome, TrainOutcome) and not work.is_referees
