"""What is simulated: sizes, churn, network, attackers, and the charter's rules. Owns these numbers; pure."""

from dataclasses import dataclass, field

from msgspec import structs

from kinoswarm_coordinator.state import Rules
from kinoswarm_model.presets import stated
from kinoswarm_protocol.charter import Charter, ClusterEntry, Licences, ShardEntry
from kinoswarm_protocol.ids import BlobId, PeerId, sha256_hex

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
OPERATOR = PeerId("12D3KooWOperator")
_SEED_SECONDS = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Churn:
    """How people's machines come and go."""

    vanish_per_day: float = 0.3
    """Share of volunteers that are never heard of again, each day; as many join anew."""
    fail: float = 0.05
    """Share of segments that end with an error for no bad reason."""
    hours_a_day: float = 12.0
    """Mean time a machine may train, from an evening that depends on where it stands."""
    always_on: float = 0.2
    """Share of machines that are never switched off."""

    @property
    def share_on(self) -> float:
        """Of all machines at a time, about."""
        return self.always_on + (1.0 - self.always_on) * self.hours_a_day / 24


_GOLDEN = 0.6180339887
"""Multiples of it spread evenly over 0..1, however many there are."""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A part of the volunteers can't reach the coordinator for a while: nothing arrives either way."""

    share: float
    """Of all volunteers, the same ones all the while."""
    from_ms: int
    until_ms: int

    def cuts_off(self, number: int, now_ms: int) -> bool:
        """Whether the volunteer of this number is in that part, now."""
        return self.from_ms <= now_ms < self.until_ms and number * _GOLDEN % 1.0 < self.share


@dataclass(frozen=True, kw_only=True)
class Wire:
    """The virtual network, for control messages."""

    latency_ms: float = 120.0
    """Mean one way; exponential, so that messages overtake each other."""
    loss: float = 0.01
    duplicate: float = 0.01
    upload_bytes_per_s: float = 1.25e6
    """Of a volunteer's line, for deltas: 10 Mbit/s."""
    partitions: tuple[Partition, ...] = ()

    def cuts_off(self, number: int, now_ms: int) -> bool:
        """Whether a volunteer's messages are lost now, whatever the chance."""
        return any(one.cuts_off(number, now_ms) for one in self.partitions)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole run; equal plans give equal runs."""

    nodes: int = 1_000
    days: float = 1.0
    seed: int = 0
    clusters: int = 0
    """0: about one for every forty nodes, eight at least."""
    segment_s: float = 3_600.0
    hostile: dict[str, float] = field(default_factory=dict)
    """Share of volunteers by behaviour (behaviours.py)."""
    trusted_workers: int = 0
    """Machines of the operator that check and merge; 0: one for every 60 nodes."""
    join_within_s: float = 3_600.0
    """The first volunteers come in this time."""
    churn: Churn = field(default_factory=Churn)
    wire: Wire = field(default_factory=Wire)

    @property
    def num_clusters(self) -> int:
        """Experts of the swarm."""
        return self.clusters or max(8, self.nodes // 40)

    @property
    def num_trusted(self) -> int:
        """Machines of the operator."""
        return self.trusted_workers or max(2, self.nodes // 60)

    @property
    def ends_at_ms(self) -> int:
        """Virtual time of the end; it begins at 0."""
        return round(self.days * DAY_MS)


STEPS_PER_S = 0.5
"""Of the middle machine: two seconds a step."""


def rules_of(plan: Plan) -> Rules:
    """The `home-12gb` preset with segments and quorums that suit a swarm of this size."""
    chosen = stated("home-12gb")
    steps = round(plan.segment_s * STEPS_PER_S)
    at_work = max(1.0, plan.nodes / plan.num_clusters * plan.churn.share_on)
    batch = chosen.model.recipe.batch_size
    policy = structs.replace(
        chosen.policy,
        segment_s=plan.segment_s,
        segment_steps_min=max(1, steps // 50),
        segment_steps_max=steps * 8,
        quorum_samples=max(1, round(at_work * steps * batch)),
        grace_s=4 * plan.segment_s,
    )
    shard = ShardEntry(blob=blob_of("shard"), num_clips=10_000, size_bytes=10**9)
    clusters = [
        ClusterEntry(f"cluster {index}", 10_000, 512, blob_of(f"heldout {index}"), [shard])
        for index in range(plan.num_clusters)
    ]
    charter = Charter(
        name="simulated",
        founder=OPERATOR,
        created_at_ms=0,
        content_note="",
        licences=Licences(data="", base_weights="", contributions="", release=""),
        model=chosen.model,
        clusters=clusters,
        seed_checkpoint=blob_of("seed"),
        seed_flops=_SEED_SECONDS * 1e13,
        seed_steps=round(_SEED_SECONDS * STEPS_PER_S),
        policy=policy,
        coordinators=[OPERATOR],
        addresses=[],
        min_version="0.1.0",
    )
    return Rules(charter=charter, charter_blob=blob_of("charter"), operator=OPERATOR, prompts=())


def blob_of(name: str) -> BlobId:
    """A made-up blob's name."""
    return BlobId(sha256_hex(name.encode()))
