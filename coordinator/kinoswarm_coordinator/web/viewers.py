"""Who holds an event stream open: bounded in all, and for each address. Owns the counts."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request

MAX_STREAMS = 256
"""Held open at once; further viewers are asked to come back (the page then polls)."""
MAX_PER_ADDRESS = 32
"""A household, or an office behind one address; more is somebody who wants to keep others out."""


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

    @contextmanager
    def watching(self, address: str) -> Iterator[None]:
        """One stream, from its first byte to its end."""
        self._by_address[address] += 1
        try:
            yield
        finally:
            self._by_address[address] -= 1
            self._by_address += Counter()  # forget addresses that are down to zero


def address_of(request: Request) -> str:
    """Who asks, as limits count."""
    return request.client.host if request.client else "nobody"
