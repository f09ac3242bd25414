"""The steps by which a node comes to a lease's base from an older version that it may hold. Pure."""

from kinoswarm_coordinator.state import SwarmState, VersionState
from kinoswarm_protocol.limits import MAX_VERSION_STEPS
from kinoswarm_protocol.messages import Order, TrainOrder
from kinoswarm_protocol.version_steps import VersionStep


def steps_to(state: SwarmState, order: Order) -> list[VersionStep]:
    """Newest first, each from the version that the next one leads to; none over a version without a step.

    Steps of forgotten versions are gone.
    """
    if not isinstance(order, TrainOrder):
        return []
    line = state.versions[order.cluster, order.lineage]
    found: list[VersionStep] = []
    for version in range(order.base_version, 0, -1):
        after = line[version]
        gone = state.is_forgotten((order.cluster, order.lineage), version)
        if after.step is None or gone or len(found) == MAX_VERSION_STEPS:
            break
        if _is_secret(state, after):
            break
        found.append(
            VersionStep(
                base=line[version - 1].checkpoint,
                result=after.checkpoint,
                delta=after.step,
                delta_bytes=after.step_bytes,
            )
        )
    return found


def _is_secret(state: SwarmState, version: VersionState) -> bool:
    """The step may be a contribution that somebody is to do again, who must not find it ready-made."""
    return any(lease_id in state.audits_open for lease_id in version.contributions)
