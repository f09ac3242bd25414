"""Volunteers on-line over time. Owns a bounded series in memory: presence is worth nothing after a restart."""

from collections import deque

from msgspec import Struct

EVERY_MS = 15_000
_POINTS = 2_000


class OnlineAt(Struct, frozen=True, kw_only=True):
    """One look at the swarm."""

    at_ms: int
    online: int
    training: int


class OnlineHistory:
    """The last looks; when they are too many, every second one is dropped and looks become rarer."""

    def __init__(self) -> None:
        self._points: deque[OnlineAt] = deque()
        self._every_ms = EVERY_MS

    def note(self, point: OnlineAt) -> None:
        """Keep a look unless the last one is too young."""
        if self._points and point.at_ms - self._points[-1].at_ms < self._every_ms:
            return
        self._points.append(point)
        if len(self._points) >= _POINTS:
            self._points = deque(list(self._points)[::2])
            self._every_ms *= 2

    def points(self) -> list[OnlineAt]:
        """Oldest first."""
        return list(self._points)
