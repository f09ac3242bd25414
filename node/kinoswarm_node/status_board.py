"""The node's face on this machine: collects what is known, writes status.json, tells a listener. Decides nothing."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from msgspec import Struct, structs

from kinoswarm_model.jobs import JobProgress
from kinoswarm_node.governor.decide import Decision
from kinoswarm_node.governor.readings import Reading, in_words
from kinoswarm_node.life_events import Segment
from kinoswarm_node.life_state import NodeState, Phase
from kinoswarm_node.node_status import GovernorStatus, NodeStatus, SegmentStatus, write_status
from kinoswarm_node.swarm_folder import SwarmFolder
from kinoswarm_protocol.errors import LocalError

MAX_POINTS = 400
"""Of a loss curve: more than a page has room for; beyond it every second point goes."""

WRITE_EVERY_MS = 1_000
"""Progress may come a hundred times a second; a person reads once a second, and an SSD lives longer."""


class News(Struct, frozen=True, kw_only=True):
    """One thing worth telling: a change of state (`reason` set), or progress (`done` of `total`)."""

    status: NodeStatus
    reason: str = ""
    what: str = ""
    done: int = 0
    total: int = 0
    in_bytes: bool = False
    needs_person: bool = False
    """Nothing goes on, or the node has ended, until somebody changes something on this machine."""


Listener = Callable[[News], None]


class EventLog(Protocol):
    """Where events are written: structlog's logger."""

    def info(self, event: str, **facts: object) -> object: ...


def logged(listener: Listener, log: EventLog) -> Listener:
    """`listener`, and every reason as an event in `log`; progress is not logged."""

    def listen(news: News) -> None:
        if news.reason:
            segment = news.status.segment
            facts = {"lease": segment.lease_id, "step": segment.step} if segment else {}
            log.info(news.reason, state=news.status.state, **facts)
        listener(news)

    return listen


class StatusBoard:
    """Keeps the current NodeStatus; writes it at every change of state and at most once a second otherwise."""

    def __init__(
        self, path: Path, first: NodeStatus, listener: Listener, now_ms: Callable[[], int]
    ) -> None:
        self.status = first
        self._path = path
        self._listener = listener
        self._now_ms = now_ms
        self._written_ms = 0
        self._speed: tuple[int, int] | None = None
        """(step, ms) of the first progress since training began or resumed."""
        self._losses: list[tuple[int, float]] = []
        self._told = ("", "")
        """Phase and reason that the listener heard last: a wait that goes on is no news."""

    def state_changed(
        self, state: NodeState, reason: str, folder: SwarmFolder, lasting: bool
    ) -> None:
        """A decision was made. A `lasting` reason says why the node does what it does; others are only told."""
        kept = self.status.segment
        if state.segment is None:
            kept = None
        elif kept is None or kept.lease_id != state.segment.lease_id:
            kept = _segment_status(state.segment)
            self._losses = []
        elif kept.label != state.segment.label:
            kept = structs.replace(kept, label=state.segment.label)
        self._speed = None
        self.status = structs.replace(
            self.status,
            state=state.phase.value,
            since_ms=state.since_ms or self._now_ms(),
            updated_at_ms=self._now_ms(),
            reason=reason if lasting and reason else self.status.reason,
            segment=kept,
            unsent=len(folder.unsent_ids()),
            awaiting_verdict=len(folder.pending_ids()),
        )
        self._write()
        if (state.phase.value, reason) != self._told:
            self._told = (state.phase.value, reason)
            self._listener(
                News(status=self.status, reason=reason, needs_person=_needs_person(state))
            )

    def governed(self, decision: Decision, reading: Reading | None, confined: list[str]) -> None:
        """The governor looked; the worker is confined in these ways."""
        self.status = structs.replace(
            self.status,
            updated_at_ms=self._now_ms(),
            confined=confined,
            governor=GovernorStatus(
                allowance=decision.allowance,
                share=decision.share,
                reason=decision.reason,
                rule=decision.rule,
                sees=in_words(reading) if reading else {},
                blind=list(reading.blind) if reading else [],
            ),
        )
        self._write_sometimes()

    def reachable_at(self, addresses: list[str], reach: str) -> None:
        """Where others may dial this node now, and whether they can, in words."""
        if (addresses, reach) != (self.status.addresses, self.status.reach):
            self.status = structs.replace(self.status, addresses=addresses, reach=reach)
            self._write()

    def counts_for(self, account: str, name: str) -> None:
        """The coordinator said whose this machine's work is; empty when it is its own."""
        self.status = structs.replace(self.status, account=account, account_name=name)
        self._write()

    def keeps(self, sentence: str) -> None:
        """What lies here for others."""
        self.status = structs.replace(self.status, keeps=sentence)
        self._write()

    def fits(self, sentence: str) -> None:
        """The self-test said what this machine can train."""
        self.status = structs.replace(self.status, fit=sentence)
        self._write()

    def amended(self, notices: list[str], update: str) -> None:
        """The founder spoke; newest first. `update` tells of a newer program, and is empty when there is none."""
        self.status = structs.replace(self.status, notices=notices, update=update)
        self._write()
        if update:
            self._listener(News(status=self.status, reason=update))

    def witnessed(self, seen: str, conflict: str) -> None:
        """What was seen of the coordinator's log; `conflict` is empty while all that was shown is one history."""
        if (seen, conflict) == (self.status.log_seen, self.status.log_conflict):
            return
        news = conflict and conflict != self.status.log_conflict
        self.status = structs.replace(self.status, log_seen=seen, log_conflict=conflict)
        self._write()
        if news:
            self._listener(News(status=self.status, reason=conflict))

    def verdict_came(self, accepted: bool, sentence: str) -> None:
        """Count a verdict of all time."""
        self.status = structs.replace(
            self.status,
            accepted=self.status.accepted + int(accepted),
            rejected=self.status.rejected + int(not accepted),
            last_verdict=sentence,
        )

    def trained(self, progress: JobProgress) -> None:
        """Progress of a training segment; its loss is finite."""
        step, total = progress.step, progress.total
        now_ms, segment = self._now_ms(), self.status.segment
        if segment is None:
            return
        self._keep_loss(step, progress.loss)
        if self._speed is None or step < self._speed[0]:
            self._speed = (step, now_ms)
        seconds = (now_ms - self._speed[1]) / 1000
        rate = (step - self._speed[0]) / seconds if seconds > 0 else None
        segment = structs.replace(
            segment,
            step=step,
            total=total,
            loss=progress.loss,
            steps_per_s=rate or None,
            saved_step=progress.saved_step,
            save_every_s=progress.save_every_s,
            save_problem=progress.save_problem,
        )
        self.status = structs.replace(self.status, segment=segment, updated_at_ms=now_ms)
        self._write_sometimes()
        self._listener(News(status=self.status, what="training", done=step, total=total))

    def losses(self) -> list[tuple[int, float]]:
        """(step, loss) of the segment in work, thinned to a bounded number of points."""
        return list(self._losses)

    def _keep_loss(self, step: int, loss: float | None) -> None:
        if self._losses and step <= self._losses[-1][0]:
            self._losses = [point for point in self._losses if point[0] < step]
        if loss is not None:
            self._losses.append((step, loss))
        if len(self._losses) > MAX_POINTS:
            self._losses = self._losses[::2]

    def fetched(self, what: str, done: int, total: int) -> None:
        """Progress of a download, in bytes."""
        news = News(status=self.status, what=what, done=done, total=total, in_bytes=True)
        self._listener(news)

    def _write_sometimes(self) -> None:
        since_ms = self._now_ms() - self._written_ms
        if not 0 <= since_ms < WRITE_EVERY_MS:  # below 0: the clock was set back
            self._write()

    def _write(self) -> None:
        """A disk that is too full for this is reported by whatever else needs it; the node must not end over it."""
        self._written_ms = self._now_ms()
        with contextlib.suppress(LocalError):
            write_status(self._path, self.status)


def _needs_person(state: NodeState) -> bool:
    """Whether it leaves or waits for another cause than a person's or the governor's wish."""
    in_trouble = state.phase is Phase.PAUSED and not state.by_person and not state.governed
    return in_trouble or (state.phase is Phase.STOPPED and bool(state.fault))


def _segment_status(segment: Segment) -> SegmentStatus:
    return SegmentStatus(
        lease_id=segment.lease_id,
        cluster=segment.cluster,
        label=segment.label,
        base_version=segment.base_version,
        step=0,
        total=segment.steps,
    )
