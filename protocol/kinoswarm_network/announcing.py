"""Tells the DHT which blobs are served here: soon after their first chunk came, and again before that is forgotten.

Owns whose turn it is. What cannot be told is tried again; a blob that is gone from the store is told no more, and its
record runs out by itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from kinoswarm_protocol.errors import RemoteError
from kinoswarm_protocol.ids import BlobId

MAX_ANNOUNCED = 1_024
"""Blobs told by one node: a bound on what it asks of the DHT, about 4 records a second at most."""

AGAIN_MS = 270_000
"""Records live for 600 s: one that is lost on the way leaves no gap."""

_TRY_AGAIN_MS = 15_000
_AT_ONCE = 8
_LOOK_EVERY_S = 0.5
_STORE_EVERY_MS = 60_000

_log = logging.getLogger(__name__)


@dataclass
class Turns:
    """When which blob is told next. Time is an argument."""

    due_ms: dict[BlobId, int] = field(default_factory=dict)

    def note(self, blob: BlobId, now_ms: int) -> None:
        """`blob` can be served: tell it soon, if it was not told already. The oldest makes room among too many."""
        if blob in self.due_ms:
            return
        while len(self.due_ms) >= MAX_ANNOUNCED:
            self.due_ms.pop(next(iter(self.due_ms)))
        self.due_ms[blob] = now_ms

    def keep_only(self, held: Collection[BlobId]) -> None:
        """Forget blobs that are not here any more."""
        self.due_ms = {blob: due for blob, due in self.due_ms.items() if blob in held}

    def take(self, now_ms: int) -> list[BlobId]:
        """Whose turn it is, the longest overdue first; they come again before their records run out."""
        due = sorted((at, blob) for blob, at in self.due_ms.items() if at <= now_ms)[:_AT_ONCE]
        for _, blob in due:
            self.due_ms[blob] = now_ms + AGAIN_MS
        return [blob for _, blob in due]

    def failed(self, blob: BlobId, now_ms: int) -> None:
        """It could not be told."""
        if blob in self.due_ms:
            self.due_ms[blob] = now_ms + _TRY_AGAIN_MS


class BlobAnnouncer:
    """The loop around `Turns`. `held` lists what is here; `tell` puts one record into the DHT."""

    def __init__(
        self,
        held: Callable[[], Collection[BlobId]],
        tell: Callable[[BlobId], Awaitable[object]],
        now_ms: Callable[[], int],
    ) -> None:
        self._held = held
        self._tell = tell
        self._now_ms = now_ms
        self._turns = Turns()

    def note(self, blob: BlobId) -> None:
        """A part of `blob` is here and can be served."""
        self._turns.note(blob, self._now_ms())

    async def run(self) -> None:
        """Until cancelled."""
        next_look_ms = 0
        while True:
            if self._now_ms() >= next_look_ms:
                await self._look_at_store()
                next_look_ms = self._now_ms() + _STORE_EVERY_MS
            for blob in self._turns.take(self._now_ms()):
                await self._tell_one(blob)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look_at_store(self) -> None:
        held = await asyncio.to_thread(self._held)
        self._turns.keep_only(held)
        for blob in held:
            self.note(blob)

    async def _tell_one(self, blob: BlobId) -> None:
        try:
            await self._tell(blob)
        except RemoteError as error:
            _log.info("could not tell the DHT of blob %s: %s", blob, error)
            self._turns.failed(blob, self._now_ms())
