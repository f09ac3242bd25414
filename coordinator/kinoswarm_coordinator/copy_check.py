"""Whether a contribution was somebody else's. Owns the sentence; pure.

Two honest trainings give different bytes, because every lease has a seed of its own. Leases with equal seeds are the
same work order, given out twice on purpose: there, equal bytes are what is hoped for.
"""

from kinoswarm_coordinator.state import SwarmState
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.messages import TrainOrder, TrainOutcome


def copied(state: SwarmState, order: TrainOrder, outcome: TrainOutcome) -> str:
    """A sentence when these bytes came in before under another work order, or are a published version; else empty."""
    delta = BlobId(outcome.delta)
    earlier = state.lease_by_delta.get(delta)
    if earlier is not None:
        other = state.leases[earlier].order
        if not isinstance(other, TrainOrder) or other.seed != order.seed:
            return "these are the very bytes that another contribution brought before"
    if delta in state.checkpoints:
        return "these are the bytes of a published version, not of a training"
    return ""
