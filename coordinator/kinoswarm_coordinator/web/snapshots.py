"""The newest view, made at most twice a second however many ask. Owns freshness and the tag of what is shown."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import msgspec
from msgspec import structs

from kinoswarm_coordinator.queries import History
from kinoswarm_coordinator.views import SwarmView
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_coordinator.web.viewers import Viewers

FRESH_S = 0.5
"""A view this old may still be shown."""
BEAT_S = 5.0
"""A quiet stream says so this often: proxies keep it, and presence (which changes without an event) is looked at."""


@dataclass(frozen=True)
class Snapshot:
    """One moment. `tag` changes exactly when something other than the clock does."""

    view: SwarmView
    tag: str
    history: History


class Snapshots:
    """Shared by all who look. `clock` counts seconds."""

    def __init__(self, sources: WebSources, clock: Callable[[], float]) -> None:
        self.viewers = Viewers()
        self._sources = sources
        self._clock = clock
        self._last: Snapshot | None = None
        self._made_at = 0.0

    def newest(self) -> Snapshot:
        """The view of this moment, or one at most FRESH_S old."""
        now = self._clock()
        if self._last is None or now - self._made_at >= FRESH_S:
            view = self._sources.view()
            tag = tag_of(structs.replace(view, now_ms=0))
            self._last, self._made_at = Snapshot(view, tag, self._sources.history()), now
        return self._last

    async def changes(self) -> AsyncIterator[str]:
        """The tag of the newest snapshot at once and after every change; empty when nothing changed for BEAT_S."""
        last = self.newest().tag
        yield last
        while True:
            await self._sources.next_change(BEAT_S)
            await asyncio.sleep(FRESH_S)  # a burst is told once, and no older view is then shown
            tag = self.newest().tag
            yield "" if tag == last else tag
            last = tag


def tag_of(shown: object) -> str:
    """A short name for what is shown."""
    return hashlib.sha256(msgspec.json.encode(shown)).hexdigest()[:32]
