"""A new version with the content of an older one, and what becomes of the work since. Owns these events; pure."""

from dataclasses import dataclass

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.state import LineageKey, Rules, SwarmState
from kinoswarm_coordinator.verdicts import set_aside
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.messages import TrainOrder


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """What is wanted."""

    key: LineageKey
    to_version: int
    sentence: str
    """Why."""
    refused: frozenset[LeaseId]
    """Contributions that are not merged again, and whose verdicts somebody else gives."""


def rolled_back(state: SwarmState, rules: Rules, wanted: Rollback, now_ms: int) -> list[ev.Event]:
    """Events of a rollback. Good work of the withdrawn versions may be merged anew, unless it rested on them itself.

    Work that rests on a withdrawn version and has no verdict yet gets one; accepted work is set aside with its credit.
    """
    key, to_version, sentence = wanted.key, wanted.to_version, wanted.sentence
    line = state.versions[key]
    bad = {version.version for version in line if version.version > to_version}
    resting = [
        lease_id for lease_id in resting_on(state, key, bad) if lease_id not in wanted.refused
    ]
    verdicts: list[ev.Event] = [
        ev.VerdictGiven(
            at_ms=now_ms, verdict=set_aside(lease_id, state.work[lease_id].node, sentence, now_ms)
        )
        for lease_id in resting
        if lease_id in state.undecided
    ]
    deltas_kept = {
        lease_id
        for one in line
        if not state.is_forgotten(key, one.version)
        for lease_id in one.contributions
    }
    again: list[LeaseId] = []
    lost: list[LeaseId] = []
    for lease_id in merged_since(state, key, to_version):
        if lease_id in wanted.refused or state.work[lease_id].phase != "merged":
            continue
        is_possible = lease_id in deltas_kept and _may_rest_on(state, rules, wanted, lease_id)
        (again if is_possible else lost).append(lease_id)
    rolled = ev.VersionRolledBack(
        at_ms=now_ms,
        cluster=key[0],
        lineage=key[1],
        version=line[-1].version + 1,
        to_version=to_version,
        withdrawn=sorted(bad),
        contributions=lost + [lease_id for lease_id in resting if lease_id in state.unmerged[key]],
        sentence=sentence,
        reopened=again,
    )
    return [*verdicts, rolled]


def merged_since(state: SwarmState, key: LineageKey, version: int) -> list[LeaseId]:
    """Contributions of the versions after this one that stand.

    What an earlier rollback withdrew is decided: it was given up then, or stands in a version since.
    """
    withdrawn = state.withdrawn.get(key, set())
    standing = [one for one in state.versions[key][version + 1 :] if one.version not in withdrawn]
    return [lease_id for one in standing for lease_id in one.contributions]


def _may_rest_on(state: SwarmState, rules: Rules, wanted: Rollback, lease_id: LeaseId) -> bool:
    """Whether a contribution's base stays, and is not too far behind the content that comes back."""
    key, to_version = wanted.key, wanted.to_version
    order = state.leases[lease_id].order
    assert isinstance(order, TrainOrder)
    if order.base_version > to_version or order.base_version in state.withdrawn.get(key, set()):
        return False
    line = state.versions[key]
    behind = line[to_version].position - line[order.base_version].position
    return behind <= rules.charter.policy.max_staleness


def resting_on(state: SwarmState, key: LineageKey, versions: set[int]) -> list[LeaseId]:
    """Contributions without a merge whose training began at one of these versions."""
    found = []
    for lease_id in sorted(state.undecided | state.unmerged[key].keys()):
        order = state.leases[lease_id].order
        if (
            isinstance(order, TrainOrder)
            and (order.cluster, order.lineage) == key
            and order.base_version in versions
        ):
            found.append(lease_id)
    return found
