"""Which blobs a coordinator must still have, and which of those in its store may go. Owns both answers; pure.

It goes by references, never by who brought a blob: a copy of an audited segment may be the very bytes of the first run.
A blob that the log never named is not ours to let go.
"""

from collections.abc import Iterable, Iterator

from kinoswarm_coordinator.retention import kept_releases, orders_under_way
from kinoswarm_coordinator.state import LeaseState, LineageKey, Rules, SwarmState
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.limits import MAX_VERSION_STEPS
from kinoswarm_protocol.messages import (
    CompareOrder,
    EvaluateOrder,
    MergeOrder,
    Order,
    ReleaseOrder,
    RouteOrder,
    TrainOrder,
)
from kinoswarm_protocol.outcome_blobs import blobs_of


def needed_blobs(state: SwarmState, rules: Rules, charter_blobs: Iterable[BlobId]) -> set[BlobId]:
    """Every blob that a decision, an order under way or a node in the normal course may still name.

    `charter_blobs` are the charter's own parts (`InForce.blobs`). Costs what is kept and under way, not what ever was.
    """
    charter = rules.charter
    found: set[BlobId] = {*charter_blobs, rules.charter_blob, charter.seed_checkpoint}
    found.update(shard.blob for cluster in charter.clusters for shard in cluster.shards)
    if state.router is not None:
        found.add(state.router.blob)
    for order in orders_under_way(state):
        found.update(_blobs_of_order(order))
    for lease_id in _contributions_that_count(state):
        if (work := state.work.get(lease_id)) is not None:
            found.update(blobs_of(work.outcome))
    for lease_id in state.open_leases:
        found.update(_offered_steps(state, state.leases[lease_id]))
    for key in state.versions:
        found.update(_of_lineage(state, key))
    found.update(_of_releases(state))
    return found


def was_named(state: SwarmState, blob: BlobId) -> bool:
    """Whether the log ever named a blob as something that was made in this swarm."""
    return blob in state.lease_by_delta or blob in state.named


def garbage_among(state: SwarmState, needed: set[BlobId], stored: Iterable[BlobId]) -> list[BlobId]:
    """Those of `stored` that the log named once and nobody needs, sorted. Only looks up: any thread may ask."""
    return sorted(blob for blob in stored if blob not in needed and was_named(state, blob))


def _contributions_that_count(state: SwarmState) -> set[LeaseId]:
    """Whose blobs are awaited, judged, compared or merged, or may be: a rollback reopens what kept versions hold."""
    found = state.unsettled | state.undecided
    for waiting in state.unmerged.values():
        found.update(waiting)
    for primary in state.audits_open:
        found.update((primary, *state.audits[primary].runs))
    for key, line in state.versions.items():
        gone = state.forgotten.get(key, {}).keys() | state.withdrawn.get(key, set())
        for version in line:
            if version.version not in gone:
                found.update(version.contributions)
    return found


def _of_lineage(state: SwarmState, key: LineageKey) -> Iterator[BlobId]:
    gone, line = state.forgotten.get(key, {}), state.versions[key]
    for version in line:
        if version.version not in gone:
            yield version.checkpoint
            if version.step is not None:
                yield version.step
        if version.momentum is not None:
            yield version.momentum


def _of_releases(state: SwarmState) -> Iterator[BlobId]:
    for release in kept_releases(state):
        yield from (file.blob for file in release.files)
        if release.manifest is not None:
            yield release.manifest
        for key, version in release.experts_by_key():
            yield state.versions[key][version].checkpoint


def _offered_steps(state: SwarmState, lease: LeaseState) -> Iterator[BlobId]:
    """Steps that an open lease came with (version_steps.py): they stay although their version was forgotten since."""
    order = lease.order
    if not isinstance(order, TrainOrder):
        return
    key, last = (order.cluster, order.lineage), order.base_version
    gone, issued_at_ms = state.forgotten.get(key, {}), lease.lease.issued_at_ms
    for version in range(last, max(0, last - MAX_VERSION_STEPS), -1):
        step = state.versions[key][version].step
        if step is None or gone.get(version, issued_at_ms) < issued_at_ms:
            return
        yield step


def _blobs_of_order(order: Order) -> list[BlobId]:
    match order:
        case TrainOrder():
            return [order.base]
        case EvaluateOrder():
            return [order.base, *order.deltas]
        case CompareOrder():
            return list(order.deltas)
        case MergeOrder():
            momentum = [order.momentum] if order.momentum else []
            return [order.base, *momentum, *(delta.delta for delta in order.deltas)]
        case ReleaseOrder():
            experts = [*order.experts, *order.standing]
            return [order.router, *(expert.checkpoint for expert in experts)]
        case RouteOrder():
            return []
