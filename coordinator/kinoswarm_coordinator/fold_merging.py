"""Which accepted contributions no version holds yet, and which of them may enter one now. Owns these indices."""

from kinoswarm_coordinator.state import LineageKey, SwarmState
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.messages import TrainOrder


def lineage_of(state: SwarmState, lease_id: LeaseId) -> LineageKey:
    """Cluster and lineage of a train lease."""
    order = state.leases[lease_id].order
    if not isinstance(order, TrainOrder):
        raise TypeError(f"lease {lease_id} is no train lease")
    return order.cluster, order.lineage


def enter(state: SwarmState, lease_id: LeaseId) -> None:
    """An accepted contribution waits for its version; while an audit holds it, for that too."""
    state.unmerged[lineage_of(state, lease_id)][lease_id] = None
    audit_changed(state, lease_id)


def leave(state: SwarmState, lease_id: LeaseId) -> None:
    """A version holds it, or none ever will."""
    key = lineage_of(state, lease_id)
    state.unmerged[key].pop(lease_id, None)
    _set_mergeable(state, key, lease_id, False)


def audit_changed(state: SwarmState, lease_id: LeaseId) -> None:
    """An audit of a contribution began or ended."""
    key = lineage_of(state, lease_id)
    waits = lease_id in state.unmerged[key]
    _set_mergeable(state, key, lease_id, waits and not state.is_held(lease_id))


def _set_mergeable(state: SwarmState, key: LineageKey, lease_id: LeaseId, wanted: bool) -> None:
    mergeable, samples = state.mergeable[key], state.leases[lease_id].samples
    if wanted == (lease_id in mergeable):
        return
    if wanted:
        mergeable[lease_id] = None
    else:
        del mergeable[lease_id]
    change = samples if wanted else -samples
    state.mergeable_samples[key] = state.mergeable_samples.get(key, 0) + change
