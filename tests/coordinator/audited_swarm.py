"""A small swarm with audits, whose volunteers say what they did: runs of one order and one camp lie near each other."""

from dataclasses import dataclass, field, replace
from itertools import combinations

from coordinator.small_swarm import SmallSwarm, blob_named, rules, trained, trusted_outcome
from msgspec import structs
from protocol.samples import COORDINATOR

from kinoswarm_coordinator.state import AuditCase, Rules
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import (
    CompareOrder,
    CompareOutcome,
    DeltaDistance,
    Lease,
    Outcome,
    TrainOrder,
    TrainOutcome,
)

NEAR, FAR = 0.05, 1.2


def account(number: int) -> KeyPair:
    return KeyPair(bytes([number] * 32))


def audited_rules(num_clusters: int = 1, referee: bool = False, **policy: object) -> Rules:
    """Everybody is a newcomer until two confirmed contributions, then one in fifty; volunteers settle disputes."""
    wanted: dict[str, object] = {
        "audit_one_in": 50,
        "audit_first": 2,
        "target_version": 0,
        "quorum_samples": 100,
        "segment_steps_min": 40,
        "ban_first_s": 3_600.0,
    }
    return replace(rules(num_clusters, **(wanted | policy)), referee=referee)


@dataclass
class AuditedSwarm(SmallSwarm):
    rules: Rules = field(default_factory=audited_rules)
    camps: dict[BlobId, str] = field(default_factory=dict)
    referees_camp: str = "honest"

    def run(self, key: KeyPair, lease: Lease, camp: str = "honest") -> TrainOutcome:
        """What this volunteer hands in; bytes differ between machines, honest or not."""
        delta = blob_named(f"{lease.lease_id}/{key.peer_id}")
        self.camps[delta] = camp
        return structs.replace(trained(lease), delta=delta)

    def work(self, key: KeyPair, camp: str = "honest") -> LeaseId:
        """Pull, train, hand in."""
        lease = self.leased(key)
        self.finish(key, lease, self.run(key, lease, camp))
        return LeaseId(lease.lease_id)

    def everybody(self, *numbers: int, rounds: int) -> None:
        """All of these accounts work honestly, and the operator's worker after each round."""
        for _ in range(rounds):
            for key in (account(number) for number in numbers):
                if isinstance(lease := self.pull(key), Lease):
                    self.finish(key, lease, self.run(key, lease))
            self.operate()
            self.now_ms += 11_000
            self.expire()

    def work_on(self, key: KeyPair, audited: LeaseId) -> None:
        """Work until a copy of this contribution was among it."""
        for _ in range(8):
            lease = self.leased(key)
            self.finish(key, lease, self.run(key, lease))
            self.operate()
            if self.state.audit_of.get(LeaseId(lease.lease_id)) == audited:
                return
        raise AssertionError(f"{audited} was not among the work of {key.peer_id}")

    def joined(self, *numbers: int) -> list[KeyPair]:
        keys = [account(number) for number in numbers]
        for key in keys:
            self.hello(key)
        return keys

    def case(self, lease_id: LeaseId) -> AuditCase:
        return self.state.audits[lease_id]

    def trusted_outcome(self, lease: Lease, worse: bool) -> Outcome:
        if isinstance(lease.order, TrainOrder):
            return self.run(COORDINATOR, lease, self.referees_camp)
        if not isinstance(lease.order, CompareOrder):
            return trusted_outcome(lease, worse)
        camps = [self.camps[delta] for delta in lease.order.deltas]
        return CompareOutcome(
            distances=[
                DeltaDistance(
                    first=one,
                    second=other,
                    distance=NEAR if camps[one] == camps[other] else FAR,
                    cosine=0.9,
                )
                for one, other in combinations(range(len(camps)), 2)
            ]
        )
