"""What the log and the state hold of amendments. Owns their events; pure."""

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.charter_file import InForce
from kinoswarm_coordinator.state import SwarmState
from kinoswarm_protocol.charter import in_words


def amended_events(state: SwarmState, in_force: InForce, now_ms: int) -> list[ev.Event]:
    """An event for each amendment in force that the log does not hold yet."""
    return [
        ev.Amended(
            at_ms=now_ms,
            number=opened.body.number,
            founder=opened.signer,
            sentence=in_words(opened.body),
            raw=opened.raw,
        )
        for opened in in_force.chain.amendments[len(state.amendments) :]
    ]
