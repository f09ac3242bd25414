"""Who holds an event stream open: bounded in all, and for each address. Owns the counts."""

from collections import Counter
from collections.abc import AsyncIterator

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from kinoswarm_network.rate_limit import network_of

MAX_STREAMS = 256
"""Held open at once; further viewers are asked to come back (the page then polls)."""
MAX_PER_ADDRESS = 32
"""A household, or an office behind one address; more is somebody who wants to keep others out."""
_EVENTS = "text/event-stream"


class Viewers:
    """Streams under way, by address."""

    def __init__(self, most: int = MAX_STREAMS, most_per_address: int = MAX_PER_ADDRESS) -> None:
        self._most, self._most_per_address = most, most_per_address
        self._by_address: Counter[str] = Counter()

    @property
    def number(self) -> int:
        """Of all streams."""
        return self._by_address.total()

    def too_many(self, address: str) -> str:
        """Why this address may not open one more now; empty when it may."""
        if self.number >= self._most:
            return f"{self._most} viewers are connected"
        if self._by_address[address] >= self._most_per_address:
            return f"{self._most_per_address} streams are open from your address"
        return ""

    async def watching(self, address: str, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """One stream, from its first byte to its end; empty when others of a burst took the last place meanwhile."""
        if self.too_many(address):
            return
        self._by_address[address] += 1
        try:
            async for frame in frames:
                yield frame
        finally:
            self._by_address[address] -= 1
            self._by_address += Counter()  # forget addresses that are down to zero


def event_stream(
    request: Request, viewers: Viewers, frames: AsyncIterator[bytes], headers: dict[str, str]
) -> Response:
    """Server-sent events; of a HEAD the headers alone: who writes nothing never learns that nobody reads."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers}
    if request.method == "HEAD":
        return Response(media_type=_EVENTS, headers=headers)
    watched = viewers.watching(address_of(request), frames)
    return StreamingResponse(watched, media_type=_EVENTS, headers=headers)


def address_of(request: Request) -> str:
    """Who asks, as rate limits count."""
    return network_of(request.client.host if request.client else "nobody")
