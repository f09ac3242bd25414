"""What the coordinator knows: frozen entities in one container. Owns their shape; only fold.py changes the container.

State is a fold of the event log. Who was seen when, and how far a segment is, is presence: beside it, never logged.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct
from sortedcontainers import SortedList

from kinoswarm_coordinator.work_table import WorkTable
from kinoswarm_protocol.admin import AdminAction
from kinoswarm_protocol.charter import Charter
from kinoswarm_protocol.ids import BlobId, LeaseId, PeerId
from kinoswarm_protocol.messages import (
    AccuracyAt,
    Lease,
    Order,
    ReleaseFile,
    TrainOrder,
    TrainOutcome,
)

Purpose = Literal["train", "audit", "referee", "evaluate", "compare", "merge", "route", "release"]
AuditResult = Literal["open", "confirmed", "refuted", "unclear", "given_up", "moot"]
LeasePhase = Literal["open", "expired", "failed", "submitted"]
LineageKey = tuple[int, int]
"""(cluster, lineage)"""


class NodeState(Struct, frozen=True, kw_only=True):
    """One volunteer, or the operator's own worker."""

    peer: PeerId
    pseudonym: str
    device: str
    program_version: str
    addresses: list[str]
    """For dialling only; never shown."""
    seconds_per_step: float
    joined_at_ms: int
    accepted: int = 0
    rejected: int = 0
    failed: int = 0


class LeaseState(Struct, frozen=True, kw_only=True):
    lease: Lease
    purpose: Purpose
    """Ours alone: an audit looks like any other train lease to its node."""
    request_id: str
    phase: LeasePhase = "open"

    @property
    def order(self) -> Order:
        return self.lease.order

    @property
    def samples(self) -> int:
        """Of a train lease, as the lease fixes them; 0 for other kinds."""
        order = self.lease.order
        return order.steps * order.batch_size if isinstance(order, TrainOrder) else 0


class VersionState(Struct, frozen=True, kw_only=True):
    """One version of an expert. Its held-out loss is on the cluster's private clips."""

    version: int
    checkpoint: BlobId
    momentum: BlobId | None
    heldout_loss: float | None
    created_at_ms: int
    contributions: list[LeaseId]
    step: BlobId | None = None
    """The delta from the version before, which gives these very bytes; None where there is none."""
    step_bytes: int = 0
    position: int = 0
    """How many merges lie between the seed and this content; a rollback has the position of what it brings back."""


class RouterState(Struct, frozen=True, kw_only=True):
    blob: BlobId
    accuracy_by_t: list[AccuracyAt]
    calibration_error: float
    share_by_cluster: list[float]
    created_at_ms: int


class ReleaseState(Struct, frozen=True, kw_only=True):
    version: int
    expert_versions: list[int]
    expert_lineages: list[int]
    considered: list[int]
    """The newest version of every cluster when the release was chosen: one that was held back is not tried again."""
    held_back: list[str]
    """Why a newer version is not in it, in sentences."""
    files: list[ReleaseFile]
    share_by_expert: list[float]
    created_at_ms: int
    manifest: BlobId | None = None
    """The signed table of contents; None until it is published."""

    def experts_by_key(self) -> list[tuple[LineageKey, int]]:
        """Lineage and version of every cluster's expert."""
        chosen = zip(self.expert_lineages, self.expert_versions, strict=True)
        return [((cluster, lineage), version) for cluster, (lineage, version) in enumerate(chosen)]


class Ban(Struct, frozen=True, kw_only=True):
    """Who is banned, until when and why."""

    until_ms: int
    sentence: str


class AdminEntry(Struct, frozen=True, kw_only=True):
    """What an operator did: public."""

    at_ms: int
    signer: PeerId
    action: AdminAction


class DelegationState(Struct, frozen=True, kw_only=True):
    """The account that a machine counts for."""

    account: PeerId
    serial: int
    expires_at_ms: int


class AccountName(Struct, frozen=True, kw_only=True):
    """What an account calls itself, and since which serial."""

    name: str
    serial: int


class AmendmentEntry(Struct, frozen=True, kw_only=True):
    """What the founder changed: public."""

    at_ms: int
    founder: PeerId
    sentence: str


class Trust(Struct, frozen=True, kw_only=True):
    """What audits found of an account."""

    confirmed: int = 0
    """Contributions in a row that another account got the same from."""
    samples: int = 0
    """Trained by these."""
    refuted: int = 0
    """Ever."""
    refused: int = 0
    """Contributions in a row that the checks refused, since the last good one or the last ban."""
    bans: int = 0
    """Ever; each lasts twice as long as the one before."""


class AuditCase(Struct, frozen=True, kw_only=True):
    """A contribution that other accounts do again."""

    lease_id: LeaseId
    opened_at_ms: int
    holds: bool
    """It enters no version before the audit ended: its account is not proven."""
    accounts: list[PeerId]
    """Whoever got this work order, the contributor first."""
    runs: list[LeaseId] = []
    """Contributions under this order whose deltas are here and judged, in the order of their verdicts."""
    compared: int = 0
    """How many of the runs the last comparison looked at."""
    disputed_at_ms: int = 0
    """When runs were first seen to differ; 0 while they did not."""
    refereed: bool = False
    """The operator's own worker took the order."""
    result: AuditResult = "open"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What decisions go by: the charter as amended, and who runs the trusted work."""

    charter: Charter
    charter_blob: BlobId
    operator: PeerId
    prompts: tuple[str, ...]
    referee: bool = True
    """Whether the operator's worker does short disputed work once more itself, to end the dispute."""


JudgedTogether = tuple[int, int, str]
"""(cluster, lineage, base): contributions that one evaluation can look at."""

Need = tuple[int, int, LineageKey]
"""(newest version, samples under way, lineage): the order in which lineages get work."""


@dataclass
class SwarmState:
    """All entities by their keys, and the indices that decisions look things up by."""

    nodes: dict[PeerId, NodeState] = field(default_factory=dict)
    leases: dict[LeaseId, LeaseState] = field(default_factory=dict)
    work: WorkTable = field(default_factory=WorkTable)
    versions: dict[LineageKey, list[VersionState]] = field(default_factory=dict)
    num_lineages: int = 1
    """Of every cluster."""
    router: RouterState | None = None
    releases: list[ReleaseState] = field(default_factory=list)

    paused: str = ""
    """Why there is no new training; empty while there is."""
    bans: dict[PeerId, Ban] = field(default_factory=dict)
    withdrawn: dict[LineageKey, set[int]] = field(default_factory=dict)
    """Versions that were rolled back."""
    forgotten: dict[LineageKey, dict[int, int]] = field(default_factory=dict)
    """Versions whose blobs may be gone, with the time (ms) at which that was decided."""
    forgotten_releases: set[int] = field(default_factory=set)
    release_wanted: bool = False
    admin_log: list[AdminEntry] = field(default_factory=list)
    admin_requests: set[str] = field(default_factory=set)

    amendments: list[AmendmentEntry] = field(default_factory=list)
    """In order: the first is number 1."""

    delegations: dict[PeerId, DelegationState] = field(default_factory=dict)
    """Which account a machine counts for; those that expired or were revoked are gone."""
    revoked: dict[tuple[PeerId, PeerId], int] = field(default_factory=dict)
    """By account and machine: delegations up to this serial are void."""
    account_names: dict[PeerId, AccountName] = field(default_factory=dict)

    lease_by_delta: dict[BlobId, LeaseId] = field(default_factory=dict)
    """Which contribution brought a delta first."""
    named: set[BlobId] = field(default_factory=set)
    """All other blobs that outcomes and releases ever named."""
    checkpoints: set[BlobId] = field(default_factory=set)
    """Blobs of all published versions."""
    sizes: dict[LineageKey, deque[float]] = field(default_factory=dict)
    """Sizes of the deltas accepted last (norm_band.py)."""
    own_scores: dict[LineageKey, deque[float]] = field(default_factory=dict)
    """Of contributions accepted last: how well they learnt what they were assigned (doubts.py)."""
    cluster_scores: dict[LineageKey, deque[float]] = field(default_factory=dict)

    trust: dict[PeerId, Trust] = field(default_factory=dict)
    """By account."""
    by_confirmed: SortedList[tuple[int, PeerId]] = field(default_factory=SortedList)
    """Every account of these with its confirmed contributions, the most confirmed last."""
    audits: dict[LeaseId, AuditCase] = field(default_factory=dict)
    """By the contribution that is done again."""
    audit_of: dict[LeaseId, LeaseId] = field(default_factory=dict)
    """From the leases of copies, and of comparisons, to that contribution."""
    audits_open: dict[LeaseId, None] = field(default_factory=dict)
    """Without a result, oldest first, as an ordered set; so are the next three."""
    audits_wanted: dict[LeaseId, None] = field(default_factory=dict)
    """Open, nobody is at it, and nothing was found yet."""
    audits_disputed: dict[LeaseId, None] = field(default_factory=dict)
    """Open, nobody is at it, and its runs differ."""
    referee_seconds_per_step: float = 0.0
    """Of the operator's worker in its last run of disputed work; 0 before."""
    audits_ready: dict[LeaseId, None] = field(default_factory=dict)
    """Open, with runs to be compared."""
    comparing: set[LeaseId] = field(default_factory=set)
    """Cases of open compare leases."""
    audit_distances: dict[tuple[str, str, str], deque[float]] = field(default_factory=dict)
    """Between runs that confirmed each other lately (audit_band.py)."""
    uncovered: dict[PeerId, dict[LeaseId, None]] = field(default_factory=dict)
    """By account: accepted contributions that no audit stands for yet, oldest first."""

    open_leases: set[LeaseId] = field(default_factory=set)
    open_by_node: dict[PeerId, set[LeaseId]] = field(default_factory=dict)
    samples_under_way: dict[LineageKey, int] = field(default_factory=dict)
    """Samples leased, awaiting a verdict, or accepted and unmerged."""
    lease_by_request: dict[tuple[PeerId, str], LeaseId] = field(default_factory=dict)
    undecided: set[LeaseId] = field(default_factory=set)
    """Train contributions without a verdict."""
    undecided_by_delta: dict[BlobId, set[LeaseId]] = field(default_factory=dict)
    """The same, by what they brought."""
    judgeable: dict[JudgedTogether, dict[LeaseId, None]] = field(default_factory=dict)
    """Those of them whose blobs are here and that nobody looks at, first come first, as ordered sets."""
    unmerged: dict[LineageKey, dict[LeaseId, None]] = field(default_factory=dict)
    """Accepted train contributions that no version holds yet, the first accepted first, as ordered sets."""
    mergeable: dict[LineageKey, dict[LeaseId, None]] = field(default_factory=dict)
    """Those of them that neither an audit nor a version still to come holds back, as ordered sets."""
    ahead: set[LineageKey] = field(default_factory=set)
    """Lineages with unmerged work that rests on versions beyond the newest, which were withdrawn."""
    mergeable_samples: dict[LineageKey, int] = field(default_factory=dict)
    """Trained by these."""
    by_need: SortedList[Need] = field(default_factory=SortedList)
    """All lineages, the neediest first: the lowest version, then the fewest samples under way."""
    need_of: dict[LineageKey, Need] = field(default_factory=dict)
    """The entry of each in it."""
    unsettled: set[LeaseId] = field(default_factory=set)
    """Contributions of any kind whose blobs have not all arrived."""
    in_judgement: set[LeaseId] = field(default_factory=set)
    """Contributions that an open evaluate lease looks at."""

    def ban_of(self, peer: PeerId, now_ms: int) -> Ban | None:
        """The ban that holds now, on a machine itself or on its account."""
        for key in (peer, self.account_of(peer)):
            ban = self.bans.get(key)
            if ban is not None and ban.until_ms > now_ms:
                return ban
        return None

    def account_of(self, peer: PeerId) -> PeerId:
        """Who gets the credit and the trust of a machine: its account, or the machine itself while it has none."""
        delegation = self.delegations.get(peer)
        return delegation.account if delegation is not None else peer

    def answers_for(self, lease_id: LeaseId) -> PeerId:
        """Whose trust a contribution adds to or costs, also when its machine has left that account since."""
        work = self.work[lease_id]
        return work.account or self.account_of(work.node)

    def is_audited(self, lease_id: LeaseId) -> bool:
        """Whether an audit looks at this contribution, or it is one itself."""
        return lease_id in self.audits or lease_id in self.audit_of

    def is_held(self, lease_id: LeaseId) -> bool:
        """Whether a contribution waits for its audit before it may enter a version."""
        case = self.audits.get(lease_id)
        return case is not None and case.holds and case.result == "open"

    def delta_of(self, lease_id: LeaseId) -> BlobId:
        """The delta of a train contribution."""
        outcome = self.work[lease_id].outcome
        assert isinstance(outcome, TrainOutcome)
        return BlobId(outcome.delta)

    def is_forgotten(self, key: LineageKey, version: int) -> bool:
        """Whether the blobs of a version may be gone."""
        return version in self.forgotten.get(key, {})

    def staleness(self, order: TrainOrder) -> int:
        """How many merges the base of a work order is behind its lineage; 0 also where that was rolled back since."""
        line = self.versions[order.cluster, order.lineage]
        return max(0, line[-1].position - line[order.base_version].position)

    def newest(self, key: LineageKey) -> VersionState:
        """The newest version of a lineage; version 0 exists from the founding."""
        return self.versions[key][-1]

    def lowest_version(self) -> int:
        """Every cluster's furthest lineage has this version or a higher one."""
        clusters = {cluster for cluster, _ in self.versions}
        return min(self.newest(self.furthest(cluster)).version for cluster in clusters)

    def furthest(self, cluster: int) -> LineageKey:
        """The lineage of a cluster with the highest version; among equals the first."""
        keys = [(cluster, lineage) for lineage in range(self.num_lineages)]
        return max(keys, key=lambda key: (self.newest(key).version, -key[1]))
