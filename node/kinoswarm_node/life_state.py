"""The state of a node's life: all that its decisions depend on. Owns the types; life_cycle.py decides."""

from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

from kinoswarm_node.life_events import Effect, Fit, Segment
from kinoswarm_protocol.ids import LeaseId


class Phase(StrEnum):
    STARTING = "starting"
    JOINING = "joining"
    TESTING = "testing"
    RESUMING = "resuming"
    IDLE = "idle"
    FETCHING = "fetching"
    TRAINING = "training"
    SUBMITTING = "submitting"
    WAITING_VERDICT = "waiting_verdict"
    PAUSED = "paused"
    LEAVING = "leaving"
    STOPPED = "stopped"


class NodeState(Struct, frozen=True, kw_only=True):
    """Everything the decisions depend on."""

    phase: Phase = Phase.STARTING
    since_ms: int = 0
    once: bool = False
    """Leave after the first accepted segment."""
    joined: bool = False
    tested: bool = False
    """This machine passed its self-test, now or in an earlier life."""
    finishing: bool = False
    """Leave as soon as what is begun is sent."""
    attempt: int = 0
    """Failed tries in a row of what is being done now."""
    segment: Segment | None = None
    unsent: LeaseId | None = None
    pending: frozenset[LeaseId] = frozenset()
    """Submitted, without a verdict yet."""
    fit: Fit = Fit()
    deaths: int = 0
    """Of the worker, in this segment."""
    failures: int = 0
    """Segments in a row that this machine could not do."""
    last_failure: str = ""
    accepted: int = 0
    """Since the start of the program."""
    rejected: int = 0
    by_person: bool = False
    """Paused by a person: nothing at all is done."""
    governed: str = ""
    """Why the governor lets nothing be computed now; joining and sending go on meanwhile. Empty: no objection."""
    fault: str = ""
    """Why the node leaves, when it is not by wish."""


class Step(NamedTuple):
    """What `step` decided: the new state, what to carry out, and a sentence for the volunteer."""

    state: NodeState
    effects: tuple[Effect, ...]
    reason: str
