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
    keeps_resting: bool
    """Whether good work that rests on what is withdrawn may be merged on what takes its place.

    A refuted contribution moved the weights by its share of a merge at most, so what others learnt from there holds.
    """


def rolled_back(state: SwarmState, rules: Rules, wanted: Rollback, now_ms: int) -> list[ev.Event]:
    """Events of a rollback. Good work of the withdrawn versions may be merged anew, in the order of their bases.

    Work that rests on a withdrawn version and has no verdict yet gets one, since its audit would rest there too; what
    can't be merged any more is set aside with its credit.
    """
    key, line = wanted.key, state.versions[wanted.key]
    bad = {version.version for version in line if version.version > wanted.to_version}
    resting = [
        lease_id
        for lease_id in resting_on(state, key, _lost_bases(state, wanted, bad))
        if lease_id not in wanted.refused
    ]
    again, lost = _withdrawn_work(state, rules, wanted, bad)
    rolled = ev.VersionRolledBack(
        at_ms=now_ms,
        cluster=key[0],
        lineage=key[1],
        version=line[-1].version + 1,
        to_version=wanted.to_version,
        withdrawn=sorted(bad),
        contributions=[
            *(
                lease_id
                for lease_id in resting
                if lease_id in state.unmerged[key]
                and not (wanted.keeps_resting and _is_settled(state, lease_id, bad))
            ),
            *lost,
        ],
        sentence=wanted.sentence,
        reopened=again,
        momentum=line[wanted.to_version].momentum,
    )
    return [*_set_aside(state, wanted, resting, now_ms), rolled]


def _set_aside(
    state: SwarmState, wanted: Rollback, resting: list[LeaseId], now_ms: int
) -> list[ev.Event]:
    """Verdicts on what has none yet."""
    return [
        ev.VerdictGiven(
            at_ms=now_ms,
            verdict=set_aside(lease_id, state.work[lease_id].node, wanted.sentence, now_ms),
        )
        for lease_id in resting
        if lease_id in state.undecided
    ]


def _withdrawn_work(
    state: SwarmState, rules: Rules, wanted: Rollback, bad: set[int]
) -> tuple[list[LeaseId], list[LeaseId]]:
    """What withdrawn versions held: that may be merged anew, and the rest."""
    key = wanted.key
    kept = {
        lease_id
        for one in state.versions[key]
        if not state.is_forgotten(key, one.version)
        for lease_id in one.contributions
    }
    again: list[LeaseId] = []
    lost: list[LeaseId] = []
    for lease_id in merged_since(state, key, wanted.to_version):
        if lease_id in wanted.refused or state.work[lease_id].phase != "merged":
            continue
        is_possible = (
            lease_id in kept
            and _is_settled(state, lease_id, bad)
            and _may_rest_on(state, rules, wanted, lease_id)
        )
        (again if is_possible else lost).append(lease_id)
    return again, lost


def merged_since(state: SwarmState, key: LineageKey, version: int) -> list[LeaseId]:
    """Contributions of the versions after this one that stand.

    What an earlier rollback withdrew is decided: it was given up then, or stands in a version since.
    """
    withdrawn = state.withdrawn.get(key, set())
    standing = [one for one in state.versions[key][version + 1 :] if one.version not in withdrawn]
    return [lease_id for one in standing for lease_id in one.contributions]


def _lost_bases(state: SwarmState, wanted: Rollback, bad: set[int]) -> set[int]:
    """Versions whose work without a merge is looked at: with an operator's, also what an earlier rollback spared."""
    return bad if wanted.keeps_resting else bad | state.withdrawn.get(wanted.key, set())


def _is_settled(state: SwarmState, lease_id: LeaseId, bad: set[int]) -> bool:
    """Whether no open audit of it ends with its base: what would never be looked at must not come in."""
    order = state.leases[lease_id].order
    assert isinstance(order, TrainOrder)
    return lease_id not in state.audits_open or order.base_version not in bad


def _may_rest_on(state: SwarmState, rules: Rules, wanted: Rollback, lease_id: LeaseId) -> bool:
    """Whether a contribution's base is not too far behind the content that comes back."""
    order = state.leases[lease_id].order
    assert isinstance(order, TrainOrder)
    line = state.versions[wanted.key]
    behind = line[wanted.to_version].position - line[order.base_version].position
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
