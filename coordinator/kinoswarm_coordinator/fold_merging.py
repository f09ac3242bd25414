"""Which accepted contributions no version holds yet, and which of them may enter one now. Owns these indices.

Work that rests on a withdrawn version waits until the lineage has come as far again: what was merged one after another
is merged one after another anew. Where nothing else could be merged, what rests on the nearest need not wait.
"""

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


def sort_out_ahead(state: SwarmState, key: LineageKey) -> None:
    """What rests on versions beyond the newest may be merged now, or waits. After a rollback, and after every event
    until nothing rests ahead any more.
    """
    newest = state.newest(key).position
    positions = {lease_id: _base_position(state, key, lease_id) for lease_id in state.unmerged[key]}
    free = [lease_id for lease_id in positions if not state.is_held(lease_id)]
    reached = max(newest, min((positions[lease_id] for lease_id in free), default=0))
    for lease_id in free:
        _set_mergeable(state, key, lease_id, positions[lease_id] <= reached)
    if max(positions.values(), default=0) > newest:
        state.ahead.add(key)
    else:
        state.ahead.discard(key)


def _base_position(state: SwarmState, key: LineageKey, lease_id: LeaseId) -> int:
    order = state.leases[lease_id].order
    assert isinstance(order, TrainOrder)
    return state.versions[key][order.base_version].position


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
