"""Control messages between nodes and coordinators, and the signed work documents. Owns every byte of them.

A request is an envelope of kind "request" signed by the node; the answer is one of kind "reply" of a coordinator.
The same envelopes travel over libp2p streams and HTTPS. Leases, contributions, verdicts and releases are
envelopes of their own, so that they can be kept, passed on and checked by anybody.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from kinoswarm_protocol.charter import Addresses, Seconds
from kinoswarm_protocol.envelope import Kind
from kinoswarm_protocol.field_types import (
    AccountEnvelope,
    ClusterIndex,
    Lineage,
    Loss,
    Place,
    Prompt,
    RawEnvelope,
    RequestId,
    Seed,
    Sentence,
    Steps,
    Version,
)
from kinoswarm_protocol.ids import (
    BlobIdField,
    DigestField,
    LeaseIdField,
    PeerIdField,
    RelativePath,
)
from kinoswarm_protocol.limits import (
    MAX_AMENDMENTS,
    MAX_CLUSTERS,
    MAX_CONTROL_FRAME,
    MAX_COPIES,
    MAX_DELTAS_PER_MERGE,
    MAX_LINEAGES,
    MAX_RECORDS_PER_LOOKUP,
    MAX_SHARDS_PER_CLUSTER,
    MAX_VERSION_STEPS,
)
from kinoswarm_protocol.specs import Count, Flops, ModeSpec, Name, NonNegative, Rate
from kinoswarm_protocol.swarm_status import SwarmStatus
from kinoswarm_protocol.version_steps import VersionStep


class _Wire(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    pass


# --- leases: what to do -------------------------------------------------------------------------


class TrainOrder(_Wire, frozen=True, kw_only=True, tag="train"):
    """Train a segment. An audit is an identical order to another account, so nobody can tell the two apart."""

    cluster: ClusterIndex
    lineage: Lineage
    base_version: Version
    base: BlobIdField
    mode: ModeSpec
    """One of the charter's, and one that the node proposed."""
    steps: Steps
    batch_size: Annotated[int, Meta(ge=1, le=65_536)]
    seed: Seed


class AssignedSamples(_Wire, frozen=True, kw_only=True):
    """What a train lease assigned: enough to draw its clips, times and noise again."""

    seed: Seed
    steps: Steps
    batch_size: Annotated[int, Meta(ge=1, le=65_536)]


class EvaluateOrder(_Wire, frozen=True, kw_only=True, tag="evaluate"):
    """Judge contributions on the private held-out file of their cluster."""

    cluster: ClusterIndex
    base_version: Version
    base: BlobIdField
    deltas: Annotated[list[BlobIdField], Meta(min_length=1, max_length=MAX_DELTAS_PER_MERGE)]
    pairs: Annotated[int, Meta(ge=1, le=1_000_000)]
    seed: Seed
    assigned: Annotated[list[AssignedSamples | None], Meta(max_length=MAX_DELTAS_PER_MERGE)] = []
    """By delta; None, or nothing at all, where nobody asks what it was trained on."""
    foreign: ClusterIndex | None = None
    probes: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Samples of each look: at what was assigned, and at this other cluster's held-out clips."""


class CompareOrder(_Wire, frozen=True, kw_only=True, tag="compare"):
    """How far apart are these deltas, which different accounts trained under one work order?"""

    cluster: ClusterIndex
    deltas: Annotated[list[BlobIdField], Meta(min_length=2, max_length=MAX_COPIES)]


class WeightedDelta(_Wire, frozen=True, kw_only=True):
    contribution: LeaseIdField
    delta: BlobIdField
    weight: NonNegative


class MergeOrder(_Wire, frozen=True, kw_only=True, tag="merge"):
    """Cut version base_version + 1 of a lineage from accepted deltas."""

    cluster: ClusterIndex
    lineage: Lineage
    base_version: Version
    base: BlobIdField
    deltas: Annotated[list[WeightedDelta], Meta(min_length=1, max_length=MAX_DELTAS_PER_MERGE)]
    outer_rate: NonNegative
    outer_momentum: Rate
    norm_clip: NonNegative
    momentum: BlobIdField | None
    pairs: Annotated[int, Meta(ge=1, le=1_000_000)]
    seed: Seed
    freshness: Rate = 1.0
    """What staleness leaves of the samples, as a share: a step that does no good is shortened by it."""


class RouteOrder(_Wire, frozen=True, kw_only=True, tag="route"):
    """Train the router on all clusters' shards."""

    steps: Steps
    seed: Seed


class ExpertRef(_Wire, frozen=True, kw_only=True):
    cluster: ClusterIndex
    lineage: Lineage
    version: Version
    checkpoint: BlobIdField


class ReleaseOrder(_Wire, frozen=True, kw_only=True, tag="release"):
    """Write a release folder from these parts and sample the prompts."""

    version: Version
    experts: Annotated[list[ExpertRef], Meta(min_length=1, max_length=MAX_CLUSTERS * MAX_LINEAGES)]
    """The newest version of every lineage."""
    standing: Annotated[list[ExpertRef], Meta(max_length=MAX_CLUSTERS)]
    """Those of the last release: one stays where no newer one is as good."""
    pairs: Annotated[int, Meta(ge=1, le=1_000_000)]
    margin: NonNegative
    router: BlobIdField
    prompts: Annotated[list[Prompt], Meta(max_length=64)]
    seed: Seed


Order = TrainOrder | EvaluateOrder | CompareOrder | MergeOrder | RouteOrder | ReleaseOrder


class Lease(_Wire, frozen=True, kw_only=True):
    """A signed work order for one node."""

    lease_id: LeaseIdField
    node: PeerIdField
    issued_at_ms: Count
    deadline_ms: Count
    order: Order


# --- contributions: what was done ---------------------------------------------------------------


class TrainOutcome(_Wire, frozen=True, kw_only=True, tag="train"):
    delta: BlobIdField
    delta_bytes: Count
    samples: Count
    steps: Count
    loss_first: Loss
    loss_last: Loss
    delta_norm: NonNegative
    seconds: Seconds
    flops: Flops


class LossShift(_Wire, frozen=True, kw_only=True):
    """A mean paired difference of losses."""

    difference: Loss
    standard_error: NonNegative


class DeltaJudgement(_Wire, frozen=True, kw_only=True):
    """One delta as seen by an evaluator: a code, and the paired losses when it could be applied."""

    delta: BlobIdField
    code: Name
    problem: Sentence
    norm: NonNegative
    base_loss: Loss
    difference: Loss
    standard_error: NonNegative
    on_assigned: LossShift | None = None
    """Of the assigned samples against the same clips and times under other noise: below 0 for who trained on them."""
    on_foreign: LossShift | None = None


class EvaluateOutcome(_Wire, frozen=True, kw_only=True, tag="evaluate"):
    judgements: Annotated[list[DeltaJudgement], Meta(max_length=MAX_DELTAS_PER_MERGE)]
    flops: Flops


class DeltaDistance(_Wire, frozen=True, kw_only=True):
    """Two deltas of a compare order, by their places in it."""

    first: Place
    second: Place
    distance: NonNegative | None
    """L2 norm of their difference as a share of the larger one's norm; None when one of them can't be used."""
    cosine: Annotated[float, Meta(ge=-1.0, le=1.0)] | None


class CompareOutcome(_Wire, frozen=True, kw_only=True, tag="compare"):
    distances: Annotated[list[DeltaDistance], Meta(max_length=MAX_COPIES * MAX_COPIES)]


class MergeOutcome(_Wire, frozen=True, kw_only=True, tag="merge"):
    checkpoint: BlobIdField
    momentum: BlobIdField | None
    base_loss: Loss
    difference: Loss
    standard_error: NonNegative
    flops: Flops
    step: BlobIdField | None = None
    step_bytes: Count = 0
    restarted: bool = False
    """The step did no good: this is the plain mean of the deltas, shortened by staleness."""


class AccuracyAt(_Wire, frozen=True, kw_only=True):
    t: Rate
    accuracy: Rate


class RouteOutcome(_Wire, frozen=True, kw_only=True, tag="route"):
    router: BlobIdField
    accuracy_by_t: Annotated[list[AccuracyAt], Meta(max_length=64)]
    calibration_error: NonNegative
    share_by_cluster: Annotated[list[Rate], Meta(max_length=MAX_CLUSTERS)]
    flops: Flops


class ReleaseFile(_Wire, frozen=True, kw_only=True):
    """One file of a release: its relative path inside the folder and its blob."""

    path: RelativePath
    blob: BlobIdField
    size_bytes: Count


class ReleaseOutcome(_Wire, frozen=True, kw_only=True, tag="release"):
    files: Annotated[list[ReleaseFile], Meta(min_length=1, max_length=MAX_SHARDS_PER_CLUSTER)]
    share_by_expert: Annotated[list[Rate], Meta(max_length=MAX_CLUSTERS)]
    experts: Annotated[list[ExpertRef], Meta(min_length=1, max_length=MAX_CLUSTERS)]
    """What was chosen, by cluster."""
    held_back: Annotated[list[Sentence], Meta(max_length=MAX_CLUSTERS)]


class FailedOutcome(_Wire, frozen=True, kw_only=True, tag="failed"):
    """The node could not do it and says why; the lease is free again at once."""

    code: Name
    sentence: Sentence


Outcome = (
    TrainOutcome
    | EvaluateOutcome
    | CompareOutcome
    | MergeOutcome
    | RouteOutcome
    | ReleaseOutcome
    | FailedOutcome
)


class Contribution(_Wire, frozen=True, kw_only=True):
    """The signed result of a lease; its id is the lease's."""

    lease_id: LeaseIdField
    node: PeerIdField
    finished_at_ms: Count
    outcome: Outcome


class Verdict(_Wire, frozen=True, kw_only=True):
    """What became of a contribution, with a sentence that a volunteer understands."""

    lease_id: LeaseIdField
    node: PeerIdField
    state: Literal["accepted", "rejected", "quarantined"]
    code: Name
    sentence: Sentence
    decided_at_ms: Count


class ReleaseManifest(_Wire, frozen=True, kw_only=True):
    """The signed table of contents of a release."""

    version: Version
    swarm_name: Name
    created_at_ms: Count
    experts: Annotated[list[ExpertRef], Meta(min_length=1, max_length=MAX_CLUSTERS)]
    files: Annotated[list[ReleaseFile], Meta(min_length=1, max_length=MAX_SHARDS_PER_CLUSTER)]
    router_accuracy: Annotated[list[AccuracyAt], Meta(max_length=64)]
    share_by_expert: Annotated[list[Rate], Meta(max_length=MAX_CLUSTERS)]
    charter_sha256: DigestField


# --- requests -----------------------------------------------------------------------------------


class Machine(_Wire, frozen=True, kw_only=True):
    """What a node says of its machine; never an address. Seconds are at the wanted batch size; 0: not measured."""

    device: Name
    memory_gib: Annotated[float, Meta(ge=0.0, le=1e6)]
    seconds_per_step: NonNegative


class Hello(_Wire, frozen=True, kw_only=True, tag="hello"):
    pseudonym: Name
    program_version: Name
    machine: Machine
    addresses: Addresses
    """Where the coordinator and peers may dial this node; empty when nobody can."""
    delegation: AccountEnvelope | None = None
    """An envelope of kind "delegation" (accounts.py): the account that this machine counts for."""


class PullLease(_Wire, frozen=True, kw_only=True, tag="pull"):
    """Ask for work. The same request_id gets the same lease again, so a lost reply loses nothing."""

    modes: Annotated[list[ModeSpec], Meta(min_length=1, max_length=16)]
    """What fits this machine, best first."""
    clusters_on_disk: Annotated[list[ClusterIndex], Meta(max_length=256)]
    seconds_per_step: NonNegative
    helper: bool = False
    """Only wants to do others' contributions again, those that it can finish in time at this speed."""


class Progress(_Wire, frozen=True, kw_only=True, tag="progress"):
    lease_id: LeaseIdField
    step: Count
    loss: Loss | None


class Submit(_Wire, frozen=True, kw_only=True, tag="submit"):
    contribution: RawEnvelope
    """An envelope of kind "contribution". The node keeps serving the blobs until a verdict comes."""


class Lookup(_Wire, frozen=True, kw_only=True, tag="lookup"):
    """Give me the signed records you hold under this key (a plain key of records.py, or "charter")."""

    key: Annotated[str, Meta(min_length=1, max_length=256)]


class AskVerdicts(_Wire, frozen=True, kw_only=True, tag="verdicts"):
    lease_ids: Annotated[list[LeaseIdField], Meta(max_length=64)]


class AskStatus(_Wire, frozen=True, kw_only=True, tag="status"): ...


class RevokeMachine(_Wire, frozen=True, kw_only=True, tag="revoke"):
    """A machine no longer counts for an account. Anybody may bring it: its own signature says who wants it."""

    revocation: AccountEnvelope
    """An envelope of kind "revocation" (accounts.py)."""


RequestBody = (
    Hello | PullLease | Progress | Submit | Lookup | AskVerdicts | AskStatus | RevokeMachine
)


class Request(_Wire, frozen=True, kw_only=True):
    request_id: RequestId
    body: RequestBody


class Welcome(_Wire, frozen=True, kw_only=True, tag="welcome"):
    charter: BlobIdField
    amendments: Annotated[list[BlobIdField], Meta(max_length=MAX_AMENDMENTS)]
    """All of them, oldest first."""
    notice: Sentence
    account: PeerIdField | None = None
    """The account that this machine's work counts for from now on."""


class LeaseGrant(_Wire, frozen=True, kw_only=True, tag="lease"):
    lease: RawEnvelope
    """An envelope of kind "lease"."""
    providers: Annotated[list["ProviderHint"], Meta(max_length=64)]
    steps: Annotated[list[VersionStep], Meta(max_length=MAX_VERSION_STEPS)] = []
    """How to come to the lease's base from an older version, newest step first."""


class ProviderHint(_Wire, frozen=True, kw_only=True):
    """Somebody who serves the blobs of this work. A hint: bytes are checked against their hash."""

    peer: PeerIdField
    addresses: Addresses


class NoWork(_Wire, frozen=True, kw_only=True, tag="no_work"):
    code: Name
    sentence: Sentence
    retry_after_s: Seconds


class ProgressNoted(_Wire, frozen=True, kw_only=True, tag="noted"):
    go_on: bool
    sentence: Sentence


class Receipt(_Wire, frozen=True, kw_only=True, tag="receipt"):
    """The contribution is in the coordinator's log (after its fsync). `verdict` comes at once when already decided."""

    lease_id: LeaseIdField
    verdict: RawEnvelope | None


class Records(_Wire, frozen=True, kw_only=True, tag="records"):
    records: Annotated[list[RawEnvelope], Meta(max_length=MAX_RECORDS_PER_LOOKUP)]


class Verdicts(_Wire, frozen=True, kw_only=True, tag="verdicts"):
    verdicts: Annotated[list[RawEnvelope], Meta(max_length=64)]


class Noted(_Wire, frozen=True, kw_only=True, tag="done"):
    """It is in the coordinator's log, in a sentence."""

    sentence: Sentence


class Refusal(_Wire, frozen=True, kw_only=True, tag="refused"):
    code: Name
    sentence: Sentence


ReplyBody = (
    Welcome
    | LeaseGrant
    | NoWork
    | ProgressNoted
    | Receipt
    | Records
    | Verdicts
    | SwarmStatus
    | Noted
    | Refusal
)


class Reply(_Wire, frozen=True, kw_only=True):
    request_id: RequestId
    time_ms: Count
    """The coordinator's clock: deadlines are counted against it."""
    body: ReplyBody


REQUEST: Kind[Request] = Kind("request", Request, MAX_CONTROL_FRAME)
REPLY: Kind[Reply] = Kind("reply", Reply, MAX_CONTROL_FRAME)
LEASE: Kind[Lease] = Kind("lease", Lease, MAX_CONTROL_FRAME // 2)
CONTRIBUTION: Kind[Contribution] = Kind("contribution", Contribution, MAX_CONTROL_FRAME // 2)
VERDICT: Kind[Verdict] = Kind("verdict", Verdict, 4 * 1024)
RELEASE: Kind[ReleaseManifest] = Kind("release", ReleaseManifest, 4 * 1024 * 1024)
