"""What is under way in every lineage, which is neediest, and in which phase a contribution is. Owns these sums."""

from msgspec import structs

from kinoswarm_coordinator.fold_merging import lineage_of
from kinoswarm_coordinator.state import LineageKey, SwarmState
from kinoswarm_coordinator.work_table import WorkPhase
from kinoswarm_protocol.ids import LeaseId


def count_samples(state: SwarmState, lease_id: LeaseId, sign: int) -> None:
    """Keep the sum of what is under way; a decision looks at it for every lineage."""
    key, lease = lineage_of(state, lease_id), state.leases[lease_id]
    state.samples_under_way[key] = state.samples_under_way.get(key, 0) + sign * lease.samples
    note_need(state, key)


def note_need(state: SwarmState, key: LineageKey) -> None:
    """Keep the order of need after a version or work under way changed."""
    before = state.need_of.get(key)
    now = (state.newest(key).version, state.samples_under_way.get(key, 0), key)
    if now == before:
        return
    if before is not None:
        state.by_need.remove(before)
    state.by_need.add(now)
    state.need_of[key] = now


def set_phase(state: SwarmState, lease_id: LeaseId, phase: WorkPhase) -> None:
    """Write it down."""
    state.work[lease_id] = structs.replace(state.work[lease_id], phase=phase)
