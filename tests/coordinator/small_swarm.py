"""A swarm without processes: real decisions, made-up work. Drives the pure core as the shells do."""

from dataclasses import dataclass, field

from msgspec import structs
from protocol.samples import BLOB, COORDINATOR, FOUNDER, SWARM, charter

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.accounts import expired_delegations
from kinoswarm_coordinator.charter_file import InForce
from kinoswarm_coordinator.fold import apply
from kinoswarm_coordinator.requests import Asked, Decision, SayLease, handle
from kinoswarm_coordinator.state import Rules, SwarmState
from kinoswarm_coordinator.submissions import expired, settle
from kinoswarm_protocol.charter import CHARTER, ClusterEntry
from kinoswarm_protocol.charter_chain import OpenedChain, chain_of
from kinoswarm_protocol.envelope import seal
from kinoswarm_protocol.ids import BlobId, LeaseId, sha256_hex
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import (
    CONTRIBUTION,
    AccuracyAt,
    Contribution,
    DeltaJudgement,
    EvaluateOrder,
    EvaluateOutcome,
    Hello,
    Lease,
    Machine,
    MergeOrder,
    MergeOutcome,
    NoWork,
    Outcome,
    PullLease,
    ReleaseFile,
    ReleaseOrder,
    ReleaseOutcome,
    Request,
    RequestBody,
    RouteOrder,
    RouteOutcome,
    Submit,
    TrainOrder,
    TrainOutcome,
)
from kinoswarm_protocol.specs import ModeSpec


def blob_named(text: str) -> BlobId:
    return BlobId(sha256_hex(text.encode()))


def rules(num_clusters: int = 2, **policy: object) -> Rules:
    founded = charter()
    entry = founded.clusters[0]
    clusters = [
        ClusterEntry(f"cluster {i}", 10, 2, entry.heldout_sha256, entry.shards)
        for i in range(num_clusters)
    ]
    changed = structs.replace(founded.policy, **policy)
    return Rules(
        charter=structs.replace(founded, clusters=clusters, policy=changed),
        charter_blob=BLOB,
        operator=COORDINATOR.peer_id,
        prompts=("a hall",),
    )


def unamended() -> InForce:
    """The charter as it was founded."""
    chain = chain_of(seal(FOUNDER, CHARTER, "", charter()))
    return InForce(OpenedChain(SWARM, chain, charter(), ()), b"", BLOB, (), BLOB)


@dataclass
class SmallSwarm:
    """Requests in, events folded; time is a number that tests move."""

    rules: Rules = field(default_factory=rules)
    state: SwarmState = field(default_factory=SwarmState)
    now_ms: int = 1_000_000
    history: list[ev.Event] = field(default_factory=list)
    requests: int = 0

    def __post_init__(self) -> None:
        self.record(
            [
                ev.Founded(
                    at_ms=self.now_ms,
                    num_clusters=len(self.rules.charter.clusters),
                    seed_checkpoint=BLOB,
                    num_lineages=self.rules.charter.policy.lineages,
                )
            ]
        )

    def record(self, events: list[ev.Event]) -> None:
        for event in events:
            apply(self.state, event)
            self.history.append(event)

    def ask(self, key: KeyPair, body: RequestBody, request_id: str = "") -> Decision:
        self.requests += 1
        asked = Asked(
            signer=key.peer_id,
            request=Request(request_id=request_id or f"{self.requests:032x}", body=body),
            swarm=SWARM,
            now_ms=self.now_ms,
            seed=self.requests,
        )
        decision = handle(self.state, self.rules, asked)
        self.record(decision.events)
        return decision

    def hello(self, key: KeyPair, delegation: bytes | None = None) -> Decision:
        body = Hello(
            pseudonym="volunteer",
            program_version="0.1.0",
            machine=Machine(device="cpu", memory_gib=8.0, seconds_per_step=0.5),
            addresses=[],
            delegation=delegation,
        )
        return self.ask(key, body)

    def pull(self, key: KeyPair, request_id: str = "", **changes: object) -> Lease | NoWork:
        body = PullLease(modes=[ModeSpec(name="full")], clusters_on_disk=[], seconds_per_step=0.5)
        body = structs.replace(body, **changes)
        say = self.ask(key, body, request_id).say
        if isinstance(say, SayLease):
            return say.lease
        assert isinstance(say, NoWork), say
        return say

    def leased(self, key: KeyPair) -> Lease:
        lease = self.pull(key)
        assert isinstance(lease, Lease), lease
        return lease

    def submit(self, key: KeyPair, lease: Lease, outcome: Outcome) -> Decision:
        contribution = Contribution(
            lease_id=lease.lease_id,
            node=key.peer_id,
            finished_at_ms=self.now_ms,
            outcome=outcome,
        )
        return self.ask(key, Submit(contribution=seal(key, CONTRIBUTION, SWARM, contribution)))

    def blobs_arrive(self, lease: Lease) -> None:
        work = self.state.work[LeaseId(lease.lease_id)]
        self.record(settle(self.state, self.rules, work, self.now_ms))

    def finish(self, key: KeyPair, lease: Lease, outcome: Outcome) -> None:
        self.submit(key, lease, outcome)
        self.blobs_arrive(lease)

    def train(self, key: KeyPair) -> Lease:
        """Pull, train, hand in."""
        lease = self.leased(key)
        self.finish(key, lease, trained(lease))
        return lease

    def operate(self, worse: bool = False) -> list[str]:
        """The operator's worker, until nothing is left to do; returns the kinds it did."""
        did = []
        while isinstance(lease := self.pull(COORDINATOR), Lease):
            did.append(type(lease.order).__name__)
            self.finish(COORDINATOR, lease, self.trusted_outcome(lease, worse))
        return did

    def trusted_outcome(self, lease: Lease, worse: bool) -> Outcome:
        return trusted_outcome(lease, worse)

    def expire(self) -> None:
        self.record(
            expired(self.state, self.rules, self.now_ms)
            + expired_delegations(self.state, self.now_ms)
        )


def trained(lease: Lease) -> TrainOutcome:
    order = lease.order
    assert isinstance(order, TrainOrder)
    return TrainOutcome(
        delta=blob_named(lease.lease_id),
        delta_bytes=1000,
        samples=order.steps * order.batch_size,
        steps=order.steps,
        loss_first=1.0,
        loss_last=0.5,
        delta_norm=1.0,
        seconds=1.0,
        flops=1e9,
    )


def judgement(delta: BlobId, worse: bool) -> DeltaJudgement:
    return DeltaJudgement(
        delta=delta,
        code="accepted",
        problem="",
        norm=1.0,
        base_loss=1.0,
        difference=0.5 if worse else -0.1,
        standard_error=0.01,
    )


def trusted_outcome(lease: Lease, worse: bool = False) -> Outcome:
    """What a worker would answer to a trusted lease; `worse` makes every paired test fail."""
    match lease.order:
        case EvaluateOrder() as order:
            return EvaluateOutcome(
                judgements=[judgement(delta, worse) for delta in order.deltas], flops=1e9
            )
        case MergeOrder() as order:
            return MergeOutcome(
                checkpoint=blob_named(f"{order.cluster}/{order.base_version + 1}"),
                momentum=None,
                base_loss=1.0,
                difference=0.5 if worse else -0.1,
                standard_error=0.01,
                flops=1e9,
                step=blob_named(f"step to {order.cluster}/{order.base_version + 1}"),
                step_bytes=1000,
            )
        case RouteOrder():
            return RouteOutcome(
                router=blob_named("router"),
                accuracy_by_t=[AccuracyAt(t=0.5, accuracy=0.9)],
                calibration_error=0.05,
                share_by_cluster=[0.5, 0.5],
                flops=1e9,
            )
        case ReleaseOrder() as order:
            file = ReleaseFile(path="model_index.json", blob=BLOB, size_bytes=10)
            newest = {expert.cluster: expert for expert in order.experts}
            return ReleaseOutcome(
                files=[file],
                share_by_expert=[0.5, 0.5],
                experts=list(newest.values()),
                held_back=[],
            )
        case _:
            raise AssertionError(f"not work of the operator: {type(order).__name__}")
