"""How versions come, are withdrawn and are forgotten. Owns these parts of the state; decides nothing."""

from collections.abc import Iterable

from msgspec import structs

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator import fold_audits, fold_merging
from kinoswarm_coordinator.fold_counts import count_samples, note_need, set_phase
from kinoswarm_coordinator.state import LineageKey, SwarmState, VersionState
from kinoswarm_coordinator.work_table import WorkPhase
from kinoswarm_protocol.ids import LeaseId

MOMENTA_KEPT = 4
"""Newest versions of a lineage whose momentum is kept: as far as audits go back where work may be two versions stale,
as in the presets. A rollback that goes further begins without."""


def version_cut(state: SwarmState, event: ev.VersionCut) -> None:
    """A merge passed its test."""
    key = event.cluster, event.lineage
    state.checkpoints.add(event.checkpoint)
    # The step of a single contribution may be that contribution, which its audit may repeat.
    merged = map(state.delta_of, event.contributions)
    if event.step is not None and event.step not in merged:
        state.checkpoints.add(event.step)
    line = state.versions[key]
    if line[-1].version == 0 and line[-1].heldout_loss is None:
        line[-1] = structs.replace(line[-1], heldout_loss=event.base_loss)
    line.append(
        VersionState(
            version=event.version,
            checkpoint=event.checkpoint,
            momentum=event.momentum,
            heldout_loss=event.heldout_loss,
            created_at_ms=event.at_ms,
            contributions=event.contributions,
            step=event.step,
            step_bytes=event.step_bytes,
            position=line[-1].position + 1,
        )
    )
    _drop_momenta(line, range(len(line) - MOMENTA_KEPT))
    _leave_unmerged(state, key, event.contributions, "merged")
    note_need(state, key)


def merge_quarantined(state: SwarmState, event: ev.MergeQuarantined) -> None:
    """A merge failed its test, or was overtaken."""
    _leave_unmerged(state, (event.cluster, event.lineage), event.contributions, "quarantined")


def version_rolled_back(state: SwarmState, event: ev.VersionRolledBack) -> None:
    """Older content is the newest version, what came after it is withdrawn, and good work waits to be merged anew."""
    key = event.cluster, event.lineage
    line = state.versions[key]
    line.append(
        structs.replace(
            line[event.to_version],
            version=event.version,
            momentum=event.momentum,
            step=None,
            created_at_ms=event.at_ms,
            contributions=[],
        )
    )
    _drop_momenta(line, event.withdrawn)
    state.withdrawn.setdefault(key, set()).update(event.withdrawn)
    fold_audits.base_withdrawn(state, key, event.withdrawn)
    _leave_unmerged(state, key, event.contributions, "quarantined")
    for lease_id in event.reopened:
        fold_merging.enter(state, lease_id)
        count_samples(state, lease_id, 1)
        set_phase(state, lease_id, "accepted")
    fold_merging.sort_out_ahead(state, key)
    note_need(state, key)
    state.release_wanted = bool(state.releases)


def versions_forgotten(state: SwarmState, event: ev.VersionsForgotten) -> None:
    """Their blobs may go."""
    key = event.cluster, event.lineage
    state.forgotten.setdefault(key, {}).update(dict.fromkeys(event.versions, event.at_ms))
    _drop_momenta(state.versions[key], event.versions)


def _drop_momenta(line: list[VersionState], versions: Iterable[int]) -> None:
    for version in versions:
        if line[version].momentum is not None:
            line[version] = structs.replace(line[version], momentum=None)


def _leave_unmerged(
    state: SwarmState, key: LineageKey, lease_ids: list[LeaseId], phase: WorkPhase
) -> None:
    for lease_id in lease_ids:
        if lease_id in state.unmerged[key]:
            count_samples(state, lease_id, -1)
        fold_merging.leave(state, lease_id)
        set_phase(state, lease_id, phase)
