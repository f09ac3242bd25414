"""What can happen to a node (events) and what it may do about it (effects). Owns these types; decides nothing."""

from msgspec import Struct

from kinoswarm_protocol.errors import Code
from kinoswarm_protocol.ids import LeaseId


class Segment(Struct, frozen=True, kw_only=True):
    """What the life cycle needs to know of a train lease."""

    lease_id: LeaseId
    cluster: int
    label: str
    base_version: int
    steps: int
    batch_size: int
    deadline_ms: int
    """On the coordinator's clock."""


class Fit(Struct, frozen=True, kw_only=True):
    """How a segment is made to fit this machine's memory."""

    micro_batch: int = 0
    """Clips per backward pass; 0 lets the worker choose."""
    checkpoint_activations: bool = False


# --- events -------------------------------------------------------------------------------------


class _Event(Struct, frozen=True, kw_only=True, tag_field="event"):
    pass


class Started(_Event, frozen=True, kw_only=True):
    """The daemon is up; these things were found on disk."""

    open_segment: Segment | None = None
    unsent: LeaseId | None = None
    pending: frozenset[LeaseId] = frozenset()


class Joined(_Event, frozen=True, kw_only=True):
    """Welcomed, and the charter is verified. `tested` is false until a self-test of this machine passed once."""

    swarm_name: str
    tested: bool
    fit: Fit = Fit()
    """What the self-test, or a segment since, found to fit."""
    notice: str = ""
    """What the swarm's operator wants volunteers to read."""


class Barred(_Event, frozen=True, kw_only=True):
    """Joining can't work until a person changes something."""

    sentence: str


class SelfTested(_Event, frozen=True, kw_only=True):
    seconds_per_step: float
    fit: Fit = Fit()


class LeaseGranted(_Event, frozen=True, kw_only=True):
    segment: Segment


class NoWorkGiven(_Event, frozen=True, kw_only=True):
    sentence: str
    retry_after_s: float


class GoOn(_Event, frozen=True, kw_only=True):
    """The coordinator still wants this segment, as the charter describes it."""

    segment: Segment


class Withdrawn(_Event, frozen=True, kw_only=True):
    """The coordinator no longer wants this segment."""

    sentence: str


class Fetched(_Event, frozen=True, kw_only=True):
    pass


class Trained(_Event, frozen=True, kw_only=True):
    """The worker finished, and the contribution lies signed in the outbox."""


class GaveUp(_Event, frozen=True, kw_only=True):
    """A signed FailedOutcome lies in the outbox."""


class OutOfMemory(_Event, frozen=True, kw_only=True):
    sentence: str


class WorkerDied(_Event, frozen=True, kw_only=True):
    sentence: str


class WorkFailed(_Event, frozen=True, kw_only=True):
    """The worker says that this can't be done here."""

    code: Code
    sentence: str


class Receipted(_Event, frozen=True, kw_only=True):
    """The contribution is in the coordinator's log. A failure that was told gets no verdict."""

    awaits_verdict: bool = True


class VerdictCame(_Event, frozen=True, kw_only=True):
    lease_id: LeaseId
    accepted: bool
    sentence: str


class LostTouch(_Event, frozen=True, kw_only=True):
    """Nobody answered, or a download did not finish."""

    sentence: str


class RefusalCame(_Event, frozen=True, kw_only=True):
    code: Code
    sentence: str


class LocalTrouble(_Event, frozen=True, kw_only=True):
    """This machine can't go on now, but may later: a full disk, a folder that can't be written."""

    sentence: str


class PauseAsked(_Event, frozen=True, kw_only=True):
    sentence: str


class ResumeAsked(_Event, frozen=True, kw_only=True):
    pass


class Governed(_Event, frozen=True, kw_only=True):
    """The governor decided: `sentence` says why nothing may be computed now; empty when it may."""

    sentence: str = ""


class FinishAsked(_Event, frozen=True, kw_only=True):
    """A person wants the node to leave once its segment is done and sent."""


class WaitOver(_Event, frozen=True, kw_only=True):
    pass


class StopAsked(_Event, frozen=True, kw_only=True):
    sentence: str


class Left(_Event, frozen=True, kw_only=True):
    """Workers and network are ended."""


Event = (
    Started
    | Joined
    | Barred
    | SelfTested
    | LeaseGranted
    | NoWorkGiven
    | GoOn
    | Withdrawn
    | Fetched
    | Trained
    | GaveUp
    | OutOfMemory
    | WorkerDied
    | WorkFailed
    | Receipted
    | VerdictCame
    | LostTouch
    | RefusalCame
    | LocalTrouble
    | PauseAsked
    | ResumeAsked
    | Governed
    | FinishAsked
    | WaitOver
    | StopAsked
    | Left
)


# --- effects ------------------------------------------------------------------------------------
# An activity replaces the one that runs, and always ends in an event. `delay_ms` is waited first.


class _Effect(Struct, frozen=True, kw_only=True):
    pass


class Join(_Effect, frozen=True, kw_only=True):
    delay_ms: int = 0


class TestSelf(_Effect, frozen=True, kw_only=True):
    __test__ = False
    delay_ms: int = 0


class AskGoOn(_Effect, frozen=True, kw_only=True):
    """Ask whether a segment found on disk is still wanted."""

    segment: Segment
    delay_ms: int = 0


class Pull(_Effect, frozen=True, kw_only=True):
    delay_ms: int = 0


class Fetch(_Effect, frozen=True, kw_only=True):
    segment: Segment
    delay_ms: int = 0


class Train(_Effect, frozen=True, kw_only=True):
    """Train and put the signed contribution into the outbox."""

    segment: Segment
    fit: Fit
    delay_ms: int = 0


class GiveUp(_Effect, frozen=True, kw_only=True):
    """Put a signed FailedOutcome into the outbox, so that the lease is free again at once; ends in GaveUp."""

    segment: Segment
    code: Code
    sentence: str
    delay_ms: int = 0


class Submit(_Effect, frozen=True, kw_only=True):
    lease_id: LeaseId
    delay_ms: int = 0


class Hold(_Effect, frozen=True, kw_only=True):
    """Do nothing; ends in WaitOver."""

    delay_ms: int


class Leave(_Effect, frozen=True, kw_only=True):
    delay_ms: int = 0


Activity = Join | TestSelf | AskGoOn | Pull | Fetch | Train | GiveUp | Submit | Hold | Leave


class DropWork(_Effect, frozen=True, kw_only=True):
    """Forget a segment: its work folder and its unsent contribution. `sentence` goes to the history."""

    lease_id: LeaseId
    sentence: str


class EndWorker(_Effect, frozen=True, kw_only=True):
    """End the worker, which is idle: the machine is wanted for something else. What runs besides goes on."""


Effect = Activity | DropWork | EndWorker
