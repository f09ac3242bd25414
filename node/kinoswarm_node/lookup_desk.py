"""What a volunteer's node answers to strangers: the swarm's signed records that it keeps. Owns that one answer.

So a release is found when its coordinator is gone, also by somebody without a DHT. The asker believes the records'
own signatures; this node's signature on the reply says only who gave them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kinoswarm_node.keeping import kept_records
from kinoswarm_node.witnessing import kept_heads
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.errors import Code, Refused
from kinoswarm_protocol.ids import PeerId, SwarmId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.log_head import LOG_KEY
from kinoswarm_protocol.messages import REPLY, REQUEST, Lookup, Records, Reply


@dataclass(frozen=True)
class LookupDesk:
    """Answers `Lookup` from the records kept under `root`, a swarm's folder."""

    key: KeyPair
    swarm: SwarmId
    root: Path
    now_ms: Callable[[], int]

    async def answer(self, peer: PeerId, raw: bytes) -> bytes:
        """A signed reply. Raises BadSignature or MalformedBytes, and Refused for whatever only a coordinator does."""
        request = open_envelope(raw, REQUEST, self.swarm).body
        if not isinstance(request.body, Lookup):
            raise Refused(
                Code.NOT_PERMITTED,
                "this is a volunteer's node, not a coordinator: it looks up only",
            )
        records = await asyncio.to_thread(self._held, request.body.key)
        reply = Reply(
            request_id=request.request_id, time_ms=self.now_ms(), body=Records(records=records)
        )
        return seal(self.key, REPLY, self.swarm, reply)

    def _held(self, key: str) -> list[bytes]:
        return kept_heads(self.root) if key == LOG_KEY else kept_records(self.root, key)
