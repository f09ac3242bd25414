"""Signed heads of the event log: made at intervals, kept beside the rows, checked against them. Owns both."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from kinoswarm_coordinator.event_log import CorruptLog, Row
from kinoswarm_coordinator.sql_log import SqlLog
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.errors import BadSignature
from kinoswarm_protocol.ids import PeerId, SwarmId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.log_head import LOG_HEAD, LogHead, Mark, marked_rows


@dataclass(kw_only=True)
class HeadSigner:
    """Signs where the log ends. `newest` is what the API publishes; empty before the first."""

    log: SqlLog
    key: KeyPair
    swarm: SwarmId
    now_ms: Callable[[], int]
    newest: bytes = b""
    _signed_seq: int = field(default=0, init=False)

    def sign(self) -> bool:
        """Sign and keep the head unless it is signed already; tells whether it was new. Raises NotLeader."""
        head = self.log.head()
        if head.seq == self._signed_seq:
            return False
        kept = self.log.signed_heads(at_least=head.seq)
        if kept:
            envelope = kept[-1]
        else:
            found = self.log.hashes_of(marked_rows(head.seq))
            body = LogHead(
                seq=head.seq,
                hash=head.hash.hex(),
                epoch=self.log.epoch,
                at_ms=self.now_ms(),
                marks=[Mark(seq=seq, hash=found[seq].hex()) for seq in sorted(found, reverse=True)],
            )
            envelope = seal(self.key, LOG_HEAD, self.swarm, body)
            self.log.add_signed_head(head.seq, envelope)
        self.newest, self._signed_seq = envelope, head.seq
        return not kept

    async def run(self, every_s: float) -> None:
        """Sign now and at intervals until cancelled."""
        while True:
            await asyncio.to_thread(self.sign)
            await asyncio.sleep(every_s)


def open_head(raw: bytes, swarm: SwarmId, signers: frozenset[PeerId]) -> LogHead:
    """A head whose signature holds and is a coordinator's. Raises BadSignature, MalformedBytes or LimitExceeded."""
    opened = open_envelope(raw, LOG_HEAD, swarm)
    if opened.signer not in signers:
        raise BadSignature(
            f"the log's head is signed by {opened.signer}, which never was a coordinator of this swarm"
        )
    return opened.body


def agreeing_rows(rows: Iterable[Row], heads: Sequence[LogHead], where: str) -> Iterator[Row]:
    """The same rows, compared with signed heads on the way.

    Raises CorruptLog when history was rewritten (another hash under a signed number) or cut off (a signed row is
    missing at the end).
    """
    signed = {row for head in heads for row in head.rows().items()}
    numbers = {seq for seq, _ in signed}
    last = 0
    for row in rows:
        last = row.seq
        if last in numbers:
            expected = {hash_ for seq, hash_ in signed if seq == last}
            if expected != {row.hash.hex()}:
                raise CorruptLog(
                    f"{where}: the coordinator signed another history up to event {last} than this log has; "
                    "one of the two was rewritten"
                )
        yield row
    if numbers and max(numbers) > last:
        raise CorruptLog(
            f"{where}: the coordinator signed {max(numbers)} events and this log ends after {last}; "
            "it was cut off, or restored from an older backup"
        )
