"""State and log together: apply at once, reply after the fsync. Owns the grouping of commits.

Decisions see the newest state; nobody outside hears of an event before it is on disk. A failed write ends the process:
the state in memory is then ahead of the log, and a restart folds the log anew.
"""

import asyncio
from collections.abc import Callable, Sequence

from kinoswarm_coordinator.event_log import EventLog
from kinoswarm_coordinator.events import Event
from kinoswarm_coordinator.fold import apply
from kinoswarm_coordinator.state import SwarmState


def _ignore(event: Event) -> None:
    """Nobody follows."""


def _heard_elsewhere(writer: "asyncio.Task[None]") -> None:
    """Its error reached everybody who waited for the append."""
    if not writer.cancelled():
        writer.exception()


class Journal:
    """One writer. Appends that come while a commit runs share the next one."""

    def __init__(self, log: EventLog, follow: Callable[[Event], None] = _ignore) -> None:
        """`follow` sees every event in order too, those of the log first: for views beside the state."""
        self._follow = follow
        self.state = SwarmState()
        for event in log.read():
            apply(self.state, event)
            follow(event)
        self._log = log
        self._waiting: list[tuple[Sequence[Event], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()

    async def append(self, events: Sequence[Event]) -> None:
        """Apply now, return when durable. Raises what the log raised, from then on at every append."""
        await asyncio.shield(self.begin(events))

    def begin(self, events: Sequence[Event]) -> "asyncio.Future[None]":
        """Apply now; the future is done when these events are durable, and all that were applied before them.

        Without events it waits for those before alone. Await it shielded: others go on although one gave up.
        """
        if self._failure is not None:
            raise self._failure
        for event in events:
            apply(self.state, event)
            self._follow(event)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        is_writing = self._writer is not None and not self._writer.done()
        if not events and not is_writing:
            done.set_result(None)
            return done
        self._waiting.append((events, done))
        if not is_writing:
            self._writer = asyncio.create_task(self._write())
            self._writer.add_done_callback(_heard_elsewhere)
        return done

    async def wait_for_change(self) -> None:
        """Return after the next durable change."""
        await self._changed.wait()

    async def wait_failed(self) -> None:
        """Raise what the log raised, once it did: whoever runs this journal ends with it."""
        await self._failed.wait()
        if self._failure is not None:
            raise self._failure

    def _announce_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _write(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(
                    self._log.append, [e for events, _ in group for e in events]
                )
            except BaseException as error:
                self._fail(error, [*group, *self._waiting])
                raise
            for _, done in group:
                done.set_result(None)
            self._announce_change()

    def _fail(
        self, error: BaseException, unwritten: list[tuple[Sequence[Event], asyncio.Future[None]]]
    ) -> None:
        """The state is ahead of the log: nothing more may be decided on it."""
        self._failure, self._waiting = error, []
        self._failed.set()
        for _, done in unwritten:
            done.set_exception(error)
