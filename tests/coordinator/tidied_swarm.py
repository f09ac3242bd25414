"""A small swarm with a store: the blobs that nodes and workers brought, of which rounds of tidying let some go."""

from dataclasses import dataclass, field

from coordinator.audited_swarm import AuditedSwarm
from coordinator.small_swarm import blob_named
from msgspec import structs
from protocol.samples import BLOB

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.needed_blobs import garbage_among, needed_blobs
from kinoswarm_coordinator.retention import Keep, forgettable
from kinoswarm_coordinator.version_steps import steps_to
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import (
    Lease,
    MergeOrder,
    MergeOutcome,
    NoWork,
    Outcome,
    ReleaseFile,
    ReleaseOrder,
    ReleaseOutcome,
    TrainOutcome,
)
from kinoswarm_protocol.outcome_blobs import blobs_of

CHARTER_BLOBS = frozenset({blob_named("charter"), blob_named("chain")})


@dataclass
class TidiedSwarm(AuditedSwarm):
    keep: Keep = field(default_factory=lambda: Keep(versions=3, releases=1))
    store: set[BlobId] = field(default_factory=lambda: {BLOB, *CHARTER_BLOBS})
    alike: bool = False
    """Whether honest runs of one order are the same bytes."""
    offered: dict[str, set[BlobId]] = field(default_factory=dict)
    """Steps that each lease came with when it was given."""

    def pull(self, key: KeyPair, request_id: str = "", **changes: object) -> Lease | NoWork:
        answer = super().pull(key, request_id, **changes)
        if isinstance(answer, Lease) and answer.lease_id not in self.offered:
            steps = steps_to(self.state, answer.order)
            self.offered[answer.lease_id] = {step.delta for step in steps}
        return answer

    def run(self, key: KeyPair, lease: Lease, camp: str = "honest") -> TrainOutcome:
        outcome = super().run(key, lease, camp)
        if not self.alike or camp != "honest":
            return outcome
        delta = blob_named(f"honest run of {lease.order.seed}")
        self.camps[delta] = camp
        return structs.replace(outcome, delta=delta)

    def blobs_arrive(self, lease: Lease) -> None:
        self.store.update(blobs_of(self.state.work[LeaseId(lease.lease_id)].outcome))
        super().blobs_arrive(lease)
        for release in self.state.releases:
            if release.manifest is None:
                manifest = blob_named(f"manifest {release.version}")
                self.store.add(manifest)
                self.record(
                    [
                        ev.ReleasePublished(
                            at_ms=self.now_ms, version=release.version, manifest=manifest
                        )
                    ]
                )

    def trusted_outcome(self, lease: Lease, worse: bool) -> Outcome:
        """Every merge and release has blobs of its own."""
        outcome, order = super().trusted_outcome(lease, worse), lease.order
        if isinstance(outcome, MergeOutcome) and isinstance(order, MergeOrder):
            made = f"{order.cluster}/{order.lineage}/{order.base_version + 1}/{lease.lease_id}"
            return structs.replace(
                outcome,
                checkpoint=blob_named(f"version {made}"),
                step=blob_named(f"step {made}"),
                momentum=blob_named(f"momentum {made}"),
            )
        if isinstance(outcome, ReleaseOutcome) and isinstance(order, ReleaseOrder):
            blob = blob_named(f"release {order.version}")
            file = ReleaseFile(path="model_index.json", blob=blob, size_bytes=10)
            return structs.replace(outcome, files=[file])
        return outcome

    def needed(self) -> set[BlobId]:
        return needed_blobs(self.state, self.rules, CHARTER_BLOBS)

    def forget(self) -> list[ev.Event]:
        events = forgettable(self.state, self.rules, self.keep, self.now_ms)
        self.record(events)
        return events

    def tidy(self) -> set[BlobId]:
        """A round; what went."""
        self.forget()
        gone = set(garbage_among(self.state, self.needed(), self.store))
        self.store -= gone
        return gone
