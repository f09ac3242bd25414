"""Signed records as this coordinator gives them out: for the DHT and for `lookup`. Owns which there are."""

from dataclasses import dataclass, replace

from kinoswarm_coordinator.charter_file import InForce
from kinoswarm_coordinator.state import SwarmState
from kinoswarm_protocol.envelope import Opened
from kinoswarm_protocol.ids import SwarmId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.records import (
    Authority,
    CharterRecord,
    CoordinatorRecord,
    ExpertRecord,
    Record,
    ReleaseRecord,
    SealedRecord,
    announce_again,
    open_record,
    seal_record,
)


@dataclass(frozen=True, kw_only=True)
class RecordsBook:
    """Makes records of the newest state, signed with the coordinator's key."""

    key: KeyPair
    swarm: SwarmId
    addresses: list[str]
    epoch: int = 1
    """Of this leader (leadership.py): readers take the coordinator with the highest."""
    charter: Opened[CharterRecord] | None = None
    """The founder's record of the charter, handed on as it is."""

    def of_charter(self, in_force: InForce) -> "RecordsBook":
        """The same book after the founder spoke: amended addresses count, and the founder's newest record."""
        amended = any(opened.body.addresses for opened in in_force.chain.amendments)
        return replace(
            self,
            addresses=list(in_force.chain.charter.addresses) if amended else self.addresses,
            charter=_founders_record(in_force),
        )

    def all(self, state: SwarmState, now_ms: int) -> list[SealedRecord]:
        """Everything that is announced: where we are, newest versions, newest release."""
        bodies: list[Record] = [CoordinatorRecord(addresses=self.addresses, epoch=self.epoch)]
        for (cluster, lineage), line in sorted(state.versions.items()):
            bodies.append(
                ExpertRecord(
                    cluster=cluster,
                    lineage=lineage,
                    version=line[-1].version,
                    checkpoint=line[-1].checkpoint,
                )
            )
        bodies += self._releases(state)
        own = [seal_record(self.key, self.swarm, body, now_ms) for body in bodies]
        if self.charter is None or self.charter.body.valid_until_ms <= now_ms:
            return own
        return [announce_again(self.charter, now_ms), *own]

    def under(self, key: str, state: SwarmState, now_ms: int) -> list[SealedRecord]:
        """The records under one plain key; none for a key that this coordinator does not sign."""
        return [record for record in self.all(state, now_ms) if record.key == key]

    def _releases(self, state: SwarmState) -> list[Record]:
        published = [release for release in state.releases if release.manifest is not None]
        if not published or published[-1].manifest is None:
            return []
        return [ReleaseRecord(version=published[-1].version, blob=published[-1].manifest)]


def _founders_record(in_force: InForce) -> Opened[CharterRecord] | None:
    if not in_force.record:
        return None
    chain = in_force.chain
    authority = Authority(chain.swarm, chain.charter.founder, frozenset(chain.charter.coordinators))
    opened = open_record(in_force.record, authority)
    return opened if isinstance(opened.body, CharterRecord) else None
