"""Signed records as this coordinator gives them out: for the DHT and for `lookup`. Owns which records there are."""

from dataclasses import dataclass

from kinoswarm_coordinator.state import SwarmState
from kinoswarm_protocol.ids import SwarmId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.records import (
    CoordinatorRecord,
    ExpertRecord,
    Record,
    ReleaseRecord,
    SealedRecord,
    seal_record,
)

_EPOCH = 1  # raised by a promotion from a backup


@dataclass(frozen=True, kw_only=True)
class RecordsBook:
    """Makes records of the newest state, signed with the coordinator's key."""

    key: KeyPair
    swarm: SwarmId
    addresses: list[str]

    def all(self, state: SwarmState, now_ms: int) -> list[SealedRecord]:
        """Everything that is announced: where we are, newest versions, newest release."""
        bodies: list[Record] = [CoordinatorRecord(addresses=self.addresses, epoch=_EPOCH)]
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
        return [seal_record(self.key, self.swarm, body, now_ms) for body in bodies]

    def under(self, key: str, state: SwarmState, now_ms: int) -> list[SealedRecord]:
        """The records under one plain key; none for a key that this coordinator does not sign."""
        return [record for record in self.all(state, now_ms) if record.key == key]

    def _releases(self, state: SwarmState) -> list[Record]:
        published = [release for release in state.releases if release.manifest is not None]
        if not published or published[-1].manifest is None:
            return []
        return [ReleaseRecord(version=published[-1].version, blob=published[-1].manifest)]
