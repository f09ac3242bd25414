"""The governor at work: looks, decides, and tells the life cycle and the worker. Owns the rhythm; decides nothing."""

import asyncio
from collections.abc import Callable

from kinoswarm_node.governor.decide import Decision, GovernorState, decide
from kinoswarm_node.governor.readings import Reading, Sensors
from kinoswarm_node.governor.rules import Rules

LOOK_EVERY_S = 1.0
"""A cause is seen within this and acted on at once: memory is given back in less than two seconds."""


class Governor:
    """Watches one machine for one node."""

    def __init__(
        self, sensors: Sensors, rules: Callable[[], Rules], now_ms: Callable[[], int]
    ) -> None:
        """`rules` may change at any time, as on the local page; `now_ms` never goes back."""
        self.sensors = sensors
        self.reading: Reading | None = None
        self.decision: Decision | None = None
        self._rules = rules
        self._now_ms = now_ms
        self._state = GovernorState()

    async def look(self) -> tuple[Decision, bool]:
        """One look and what follows from it; whether that is news: another allowance, share or kind of cause."""
        self.reading = await self.sensors.read()
        before, decision = (
            self.decision,
            decide(self._state, self.reading, self._rules(), self._now_ms()),
        )
        self._state, self.decision = decision.state, decision
        news = before is None or _kind(before) != _kind(decision)
        return decision, news

    async def watch(self, tell: Callable[[Decision, bool], None]) -> None:
        """Look for ever. `tell` gets every decision, and whether it is news."""
        while True:
            decision, news = await self.look()
            tell(decision, news)
            await asyncio.sleep(LOOK_EVERY_S)


def _kind(decision: Decision) -> tuple[str, float, frozenset[str]]:
    return decision.allowance, decision.share, frozenset(decision.state.last_seen_ms)
