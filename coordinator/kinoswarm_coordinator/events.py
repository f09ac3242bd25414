"""Everything that ever happens to a swarm, as events. Owns what the log holds; a change here needs a migration."""

from msgspec import Struct

from kinoswarm_coordinator.state import AuditResult, Purpose
from kinoswarm_protocol.admin import AdminAction
from kinoswarm_protocol.ids import BlobId, LeaseId, PeerId
from kinoswarm_protocol.messages import (
    AccuracyAt,
    DeltaDistance,
    Lease,
    Outcome,
    ReleaseFile,
    Verdict,
)


class _Event(Struct, frozen=True, kw_only=True, tag_field="event", forbid_unknown_fields=True):
    at_ms: int


class Founded(_Event, frozen=True, kw_only=True, tag="founded"):
    """Version 0 of every lineage is the common seed."""

    num_clusters: int
    seed_checkpoint: BlobId
    num_lineages: int = 1


class NodeJoined(_Event, frozen=True, kw_only=True, tag="node_joined"):
    """A node said hello for the first time, or differently than before."""

    peer: PeerId
    pseudonym: str
    device: str
    program_version: str
    addresses: list[str]
    seconds_per_step: float


class MachineDelegated(_Event, frozen=True, kw_only=True, tag="machine_delegated"):
    """From now on a machine counts for an account; `raw` is the account's signed statement."""

    peer: PeerId
    account: PeerId
    name: str
    serial: int
    expires_at_ms: int
    raw: bytes


class MachineReleased(_Event, frozen=True, kw_only=True, tag="machine_released"):
    """A machine counts for itself again; `raw` is the signed revocation, empty when the delegation expired."""

    peer: PeerId
    account: PeerId
    serial: int
    raw: bytes = b""


class LeaseIssued(_Event, frozen=True, kw_only=True, tag="lease_issued"):
    lease: Lease
    purpose: Purpose
    request_id: str
    audit_of: LeaseId | None = None
    """For purposes audit and compare: the contribution that is done again."""


class LeaseExpired(_Event, frozen=True, kw_only=True, tag="lease_expired"):
    lease_id: LeaseId


class LeaseFailed(_Event, frozen=True, kw_only=True, tag="lease_failed"):
    """The node said that it could not do the work."""

    lease_id: LeaseId
    code: str
    sentence: str


class WorkReceived(_Event, frozen=True, kw_only=True, tag="work_received"):
    """A signed contribution; `raw` is the evidence."""

    lease_id: LeaseId
    node: PeerId
    outcome: Outcome
    raw: bytes


class BlobsArrived(_Event, frozen=True, kw_only=True, tag="blobs_arrived"):
    """Everything that a contribution names is in the coordinator's store."""

    lease_id: LeaseId


class VerdictGiven(_Event, frozen=True, kw_only=True, tag="verdict"):
    verdict: Verdict
    norm: float = 0.0
    """Of the delta, as the evaluator measured it; 0 when nothing was measured."""
    own_score: float | None = None
    """How well it learnt what it was assigned (doubts.py); None when nobody looked, as the next."""
    cluster_score: float | None = None


class AuditOpened(_Event, frozen=True, kw_only=True, tag="audit_opened"):
    """A contribution is to be done again by another account."""

    lease_id: LeaseId
    holds: bool
    sentence: str = ""
    """What made it doubtful; empty where chance or a newcomer's trust decided."""


class RunsCompared(_Event, frozen=True, kw_only=True, tag="runs_compared"):
    """A comparison of runs of one work order, and what follows; `open` wants one more run."""

    lease_id: LeaseId
    result: AuditResult
    runs: list[LeaseId]
    distances: list[DeltaDistance]
    """By places in `runs`."""
    agreeing: list[LeaseId]
    differing: list[LeaseId]
    covered: list[LeaseId]
    """Contributions that this audit stands for: what the confirmed accounts had handed in until then."""


class AuditGivenUp(_Event, frozen=True, kw_only=True, tag="audit_given_up"):
    """Nobody could finish it in time."""

    lease_id: LeaseId


class AccountPenalised(_Event, frozen=True, kw_only=True, tag="account_penalised"):
    """An account's work was refuted, or refused again and again; it and its machines are banned for a while."""

    account: PeerId
    until_ms: int
    sentence: str


class VersionCut(_Event, frozen=True, kw_only=True, tag="version_cut"):
    cluster: int
    lineage: int
    version: int
    checkpoint: BlobId
    momentum: BlobId | None
    heldout_loss: float
    base_loss: float
    contributions: list[LeaseId]
    step: BlobId | None = None
    """Logs from before there were steps have none."""
    step_bytes: int = 0
    restarted: bool = False
    """As in its MergeOutcome."""


class MergeQuarantined(_Event, frozen=True, kw_only=True, tag="merge_quarantined"):
    """A merged version failed its paired test: the old one stays, its contributions are set aside."""

    cluster: int
    lineage: int
    base_version: int
    contributions: list[LeaseId]
    sentence: str


class RouterTrained(_Event, frozen=True, kw_only=True, tag="router_trained"):
    blob: BlobId
    accuracy_by_t: list[AccuracyAt]
    calibration_error: float
    share_by_cluster: list[float]


class ReleaseBuilt(_Event, frozen=True, kw_only=True, tag="release_built"):
    version: int
    expert_versions: list[int]
    files: list[ReleaseFile]
    share_by_expert: list[float]
    expert_lineages: list[int] = []
    """Empty in logs from before there were several: all 0."""
    considered: list[int] = []
    """The newest version of every cluster when it was chosen; empty: what is in it."""
    held_back: list[str] = []


class ReleasePublished(_Event, frozen=True, kw_only=True, tag="release_published"):
    version: int
    manifest: BlobId


class AdminActed(_Event, frozen=True, kw_only=True, tag="admin_acted"):
    """An operator did something; `signer` is the key that asked for it."""

    signer: PeerId
    request_id: str
    action: AdminAction


class Amended(_Event, frozen=True, kw_only=True, tag="amended"):
    """The founder changed the charter; `raw` is the signed amendment."""

    number: int
    founder: PeerId
    sentence: str
    raw: bytes


class VersionRolledBack(_Event, frozen=True, kw_only=True, tag="version_rolled_back"):
    """A new version with the content of an older one; those between are withdrawn."""

    cluster: int
    lineage: int
    version: int
    to_version: int
    withdrawn: list[int]
    contributions: list[LeaseId]
    """Contributions that rested on what is withdrawn: set aside, their credit stays."""
    sentence: str
    reopened: list[LeaseId] = []
    """Good contributions of the withdrawn versions, which the next ones may hold."""
    momentum: BlobId | None = None
    """Of the older version, where it is kept."""


class VersionsForgotten(_Event, frozen=True, kw_only=True, tag="versions_forgotten"):
    """Blobs of these versions may go; nothing is decided any more that would need them."""

    cluster: int
    lineage: int
    versions: list[int]


class ReleasesForgotten(_Event, frozen=True, kw_only=True, tag="releases_forgotten"):
    """Files of these releases may go."""

    versions: list[int]


Event = (
    Founded
    | NodeJoined
    | MachineDelegated
    | MachineReleased
    | LeaseIssued
    | LeaseExpired
    | LeaseFailed
    | WorkReceived
    | BlobsArrived
    | VerdictGiven
    | AuditOpened
    | RunsCompared
    | AuditGivenUp
    | AccountPenalised
    | VersionCut
    | MergeQuarantined
    | RouterTrained
    | ReleaseBuilt
    | ReleasePublished
    | AdminActed
    | Amended
    | VersionRolledBack
    | VersionsForgotten
    | ReleasesForgotten
)
