"""What hellos may add to the log, which is kept for ever. Owns the bounds on newcomers and on changed words.

Identities cost nothing and addresses do, so newcomers are counted by the address that they come from. A node that
changes what it says of itself again and again is welcome, and its latest words are noted a little later.
"""

from dataclasses import dataclass, field, replace

from kinoswarm_coordinator.events import Event, NodeJoined
from kinoswarm_coordinator.requests import Decision
from kinoswarm_coordinator.state import SwarmState
from kinoswarm_network.rate_limit import RateLimit, limit_or_none
from kinoswarm_protocol.errors import Code
from kinoswarm_protocol.ids import PeerId
from kinoswarm_protocol.messages import Refusal

_CHANGES_PER_HOUR = 12.0
_CHANGES_AT_ONCE = 6


@dataclass(kw_only=True)
class FrontDoor:
    """Token buckets: by address for newcomers, by node for changes."""

    newcomers: RateLimit | None = None
    """No limit without one."""
    changes: RateLimit = field(
        default_factory=lambda: RateLimit(_CHANGES_PER_HOUR / 3600.0, _CHANGES_AT_ONCE)
    )

    def admitted(
        self, state: SwarmState, signer: PeerId, host: str, decision: Decision, now_s: float
    ) -> Decision:
        """The decision as it may be logged: a refusal of one newcomer too many, or without words that changed too soon.

        Without a known `host` nobody is counted: strangers would shut each other out.
        """
        if not any(isinstance(event, NodeJoined) for event in decision.events):
            return decision
        if signer in state.nodes:
            return decision if self.changes.wait_s(signer, now_s) == 0.0 else _unnoted(decision)
        wait_s = self.newcomers.wait_s(host, now_s) if self.newcomers and host else 0.0
        return decision if wait_s == 0.0 else _refused(wait_s)


def door_for(newcomers_per_hour: float) -> FrontDoor:
    """An hour's worth of newcomers at once; 0 is no limit."""
    at_once = max(1, round(newcomers_per_hour))
    return FrontDoor(newcomers=limit_or_none(newcomers_per_hour / 3600.0, at_once))


def _unnoted(decision: Decision) -> Decision:
    kept: list[Event] = [event for event in decision.events if not isinstance(event, NodeJoined)]
    return replace(decision, events=kept)


def _refused(wait_s: float) -> Decision:
    sentence = (
        "many new volunteers came from your address in the last hour; "
        f"there is room for the next in {wait_s:.0f} s, and your node asks again by itself"
    )
    return Decision(Refusal(code=Code.RATE_LIMITED, sentence=sentence), reason=sentence)
