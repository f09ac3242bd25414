"""Where peers are seen: the addresses that their packets come from. Owns how seldom libp2p is asked for its list."""

import time
from collections.abc import Awaitable, Callable

from kinoswarm_protocol.ids import PeerId

_LOOK_EVERY_S = 10.0


class Sightings:
    """The newest list, looked at anew when a peer is not on it, but no more often than every ten seconds."""

    def __init__(
        self,
        seen_at: Callable[[], Awaitable[dict[PeerId, str]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seen_at = seen_at
        self._clock = clock
        self._hosts: dict[PeerId, str] = {}
        self._looked_s = float("-inf")

    async def of(self, peer: PeerId) -> str:
        """The IP address of a peer; empty when it came through a relay or connected just now."""
        now_s = self._clock()
        if peer not in self._hosts and now_s - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = now_s
            self._hosts = await self._seen_at()
        return self._hosts.get(peer, "")
