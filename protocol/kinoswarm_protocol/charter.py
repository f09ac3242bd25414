"""The charter and its amendments: the founder-signed truth about a swarm. Owns these documents and their checks."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct, structs

from kinoswarm_protocol.envelope import Kind, Opened, open_envelope, peek_payload
from kinoswarm_protocol.errors import BadSignature, HashMismatch, MalformedBytes
from kinoswarm_protocol.ids import (
    BlobIdField,
    DigestField,
    PeerId,
    PeerIdField,
    SwarmId,
    swarm_id_of,
)
from kinoswarm_protocol.limits import (
    MAX_ADDRESS,
    MAX_ADDRESSES,
    MAX_CHARTER_BYTES,
    MAX_CLUSTERS,
    MAX_LINEAGES,
    MAX_NOTE,
    MAX_SHARDS_PER_CLUSTER,
)
from kinoswarm_protocol.specs import (
    Count,
    DeltaCodec,
    Flops,
    ModelSpec,
    Name,
    NonNegative,
    Objective,
    Rate,
)

Address = Annotated[str, Meta(min_length=1, max_length=MAX_ADDRESS)]
Addresses = Annotated[list[Address], Meta(max_length=MAX_ADDRESSES)]
Note = Annotated[str, Meta(max_length=MAX_NOTE)]
Seconds = Annotated[float, Meta(gt=0.0, le=30 * 86_400.0)]


class ShardEntry(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One public training file of a cluster."""

    blob: BlobIdField
    num_clips: Count
    size_bytes: Count


class ClusterEntry(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One semantic part of the data. The held-out file stays private; its hash is a commitment."""

    label: Name
    num_clips: Count
    num_heldout: Count
    heldout_sha256: DigestField
    shards: Annotated[list[ShardEntry], Meta(min_length=1, max_length=MAX_SHARDS_PER_CLUSTER)]
    objective: Objective = "velocity"
    """Of its expert, from version 1 on; all start from one common seed."""


class Licences(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """SPDX identifiers or short names; shown before joining."""

    data: Name
    base_weights: Name
    contributions: Name
    release: Name


class Policy(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What the coordinator decides by. An amendment may replace it."""

    segment_s: Seconds
    """Wanted length of a segment, in seconds of the node's own measured speed."""
    segment_steps_min: Annotated[int, Meta(ge=1, le=10_000_000)]
    segment_steps_max: Annotated[int, Meta(ge=1, le=10_000_000)]
    lease_factor: Annotated[float, Meta(ge=1.0, le=100.0)]
    """A lease's deadline is this many times its expected duration, but at least lease_min_s."""
    lease_min_s: Seconds
    quorum_samples: Annotated[int, Meta(ge=1, le=2**53)]
    """A version is cut when its accepted contributions trained this many samples …"""
    grace_s: Seconds
    """… or this long after the first one, whichever comes first."""
    max_staleness: Annotated[int, Meta(ge=0, le=1_000)]
    """Contributions up to this many versions old are rebased; older ones are credited but not merged."""
    staleness_decay: Rate
    """Weight factor per version of staleness."""
    outer_rate: NonNegative
    outer_momentum: Rate
    """SGD-Nesterov on merged deltas (DiLoCo, arXiv 2311.08105); unused with a single contributor."""
    norm_clip: NonNegative
    """A delta's norm is clipped to this many times the median of its merge; 0 is off."""
    heldout_margin: NonNegative
    """A contribution is rejected when its paired held-out loss is worse by over two standard errors and this share."""
    heldout_pairs: Annotated[int, Meta(ge=1, le=1_000_000)]
    target_version: Annotated[int, Meta(ge=0, le=1_000_000)]
    """Training of a cluster rests when it has this version; 0 is never."""
    delta_codec: DeltaCodec = "int8.1"
    """How nodes pack contributions. Every codec of the allow-list is read: an amendment may change it at any time."""
    work_ahead: Annotated[float, Meta(ge=1.0, le=100.0)] = 1.0
    """So many versions' worth of samples may be under way in a lineage. At 1 machines wait while a version is checked
    and cut; above, some work began at a base that is one version old when it comes in."""
    audit_one_in: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Of a proven account's contributions one in this many is done again by another account; 0 is no audits at all."""
    audit_first: Annotated[int, Meta(ge=0, le=1_000_000)] = 10
    """An account is proven once this many of its contributions in a row were confirmed by audits …"""
    audit_first_flops: Flops = 0.0
    """… and these together were this much training."""
    audit_distance: NonNegative = 0.25
    """Two runs of one lease may lie this far apart, as a share of the larger delta's norm."""
    audit_wait_s: Seconds = 21_600.0
    """An audit that nobody finished within it is given up: held-out loss alone decides."""
    unproven_share: Rate = 1.0
    """Accounts that are not proven weigh at most this share of a version, where proven ones contribute too."""
    ban_first_s: Seconds = 21_600.0
    """How long an account is banned after its first refuted contribution; each further one doubles it."""
    account_leases: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Open train leases of one account at most; 0 is no limit."""
    range_newcomers: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Open leases of accounts that are not proven from one range of addresses (IPv4 /24, IPv6 /48) at most; 0 is no
    limit."""
    lineages: Annotated[int, Meta(ge=1, le=MAX_LINEAGES)] = 1
    """Experts of one cluster that are trained apart, each by accounts of its own; a release takes the better one.
    Counts from the founding: an amendment does not change it."""


class Charter(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The founding document. Its payload's SHA-256 is the swarm id."""

    name: Name
    founder: PeerIdField
    created_at_ms: Count
    content_note: Note
    licences: Licences
    model: ModelSpec
    clusters: Annotated[list[ClusterEntry], Meta(min_length=1, max_length=MAX_CLUSTERS)]
    seed_checkpoint: BlobIdField
    """Version 0 of every expert."""
    seed_flops: Flops
    seed_steps: Count
    policy: Policy
    coordinators: Annotated[list[PeerIdField], Meta(min_length=1, max_length=16)]
    addresses: Addresses
    """Where coordinators were first reachable: multiaddresses and http(s) URLs."""
    min_version: Name
    """Oldest program version that may take part."""


class Amendment(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """A founder-signed change; `None` keeps what was. Hash-linked so that none can be left out (charter_chain.py)."""

    number: Annotated[int, Meta(ge=1, le=1_000_000)]
    previous_sha256: DigestField
    created_at_ms: Count
    notice: Note = ""
    policy: Policy | None = None
    coordinators: Annotated[list[PeerIdField], Meta(min_length=1, max_length=16)] | None = None
    addresses: Addresses | None = None
    min_version: Name | None = None
    added_clusters: Annotated[list[ClusterEntry], Meta(max_length=MAX_CLUSTERS)] = []
    new_version: Name | None = None
    """A program version that the founder recommends. It is told, never fetched."""
    version_notes: Note = ""
    """What is new in it."""


CHARTER: Kind[Charter] = Kind("charter", Charter, MAX_CHARTER_BYTES)
AMENDMENT: Kind[Amendment] = Kind("amendment", Amendment, MAX_CHARTER_BYTES)


def open_charter(raw: bytes, expected: SwarmId) -> Opened[Charter]:
    """Check a charter against the swarm id and its founder's signature.

    Raises HashMismatch when it is another swarm's or was altered, BadSignature when the founder did not sign it.
    """
    found = swarm_id_of(peek_payload(raw, MAX_CHARTER_BYTES))
    if found != expected:
        raise HashMismatch(
            f"the charter's hash is {found[:12]}…, the invite names {expected[:12]}…: it was altered or belongs to "
            "another swarm; ask for a fresh invite"
        )
    opened = open_envelope(raw, CHARTER, "")
    if opened.signer != opened.body.founder:
        raise BadSignature(
            f"charter signed by {opened.signer}, but it names {opened.body.founder} as founder"
        )
    return opened


def amend(charter: Charter, amendments: Sequence[Amendment]) -> Charter:
    """The charter as changed by `amendments` (already verified, in order)."""
    for number, amendment in enumerate(amendments, start=1):
        if amendment.number != number:
            raise MalformedBytes(f"amendment {amendment.number} where number {number} was expected")
        changed = {
            name: value
            for name in ("policy", "coordinators", "addresses", "min_version")
            if (value := getattr(amendment, name)) is not None
        }
        clusters = [*charter.clusters, *amendment.added_clusters]
        charter = structs.replace(charter, clusters=clusters, **changed)
    return charter


def in_words(amendment: Amendment) -> str:
    """What an amendment changes and says, for people; the founder's own words come last."""
    changed = [
        what
        for what, value in (
            ("policy", amendment.policy),
            ("coordinators' keys", amendment.coordinators),
            ("addresses", amendment.addresses),
        )
        if value is not None
    ]
    parts = [f"changes the {' and the '.join(changed)}"] if changed else []
    if amendment.min_version is not None:
        parts.append(f"asks for version {amendment.min_version} or newer")
    if amendment.new_version is not None:
        parts.append(f"recommends version {amendment.new_version}: {amendment.version_notes}")
    if amendment.added_clusters:
        parts.append(f"adds {len(amendment.added_clusters)} cluster(s)")
    if amendment.notice:
        parts.append(f"says: {amendment.notice}")
    return f"amendment {amendment.number} {'; '.join(parts) or 'changes nothing'}"


def version_numbers(version: str) -> tuple[int, ...]:
    """A program's `1.12.0` as numbers, to compare; whatever does not count as a number ends it."""
    found = []
    for part in version.split("."):
        if not part.isdecimal() or len(part) > 9:
            break
        found.append(int(part))
    return tuple(found)


def is_coordinator(charter: Charter, peer: PeerId) -> bool:
    """Whether `peer` may sign leases, verdicts and releases of this swarm."""
    return peer in charter.coordinators
