"""Which versions and releases a coordinator may forget. Owns the rule and its sentence; pure.

Forgetting is an event: from then on no decision needs the blobs that only these had (needed_blobs.py), and tidying.py
lets them go. What was forgotten stays so, also when the settings change.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.state import LineageKey, ReleaseState, Rules, SwarmState
from kinoswarm_protocol.messages import MergeOrder, Order, ReleaseOrder, TrainOrder

_BEYOND_STALENESS = 2
"""Versions kept beside those that work may be stale by: the newest, and one from before the oldest that an audit may
take back."""


@dataclass(frozen=True, kw_only=True)
class Keep:
    """How much an operator keeps; 0 is everything."""

    versions: int = 8
    """Newest versions of every lineage, withdrawn ones not counted."""
    releases: int = 3
    """Newest published ones."""


def forgettable(state: SwarmState, rules: Rules, keep: Keep, now_ms: int) -> list[ev.Event]:
    """Events that forget what is beyond `keep` and in nobody's use; none when there is nothing.

    Version 0 stays, and the base of every open lease, of every contribution without a verdict and of every open audit;
    so do releases that are not published yet, and the versions in releases that stay.
    """
    releases = _old_releases(state, keep)
    events: list[ev.Event] = []
    if releases:
        events.append(ev.ReleasesForgotten(at_ms=now_ms, versions=releases))
    if not keep.versions:
        return events
    used = _versions_in_use(state, set(releases))
    least = rules.charter.policy.max_staleness + _BEYOND_STALENESS
    for key in sorted(state.versions):
        newest = _standing(state, key)[-max(keep.versions, least) :]
        kept = {0, *newest, *used.get(key, ())}
        old = [version for version in _remembered(state, key) if version not in kept]
        if old:
            events.append(
                ev.VersionsForgotten(at_ms=now_ms, cluster=key[0], lineage=key[1], versions=old)
            )
    return events


def kept_releases(state: SwarmState) -> list[ReleaseState]:
    """Releases whose files are still here, oldest first."""
    return [
        release for release in state.releases if release.version not in state.forgotten_releases
    ]


def orders_under_way(state: SwarmState) -> Iterator[Order]:
    """Of open leases, of work whose blobs are still coming or that has no verdict, and of open audits."""
    lease_ids = {*state.open_leases, *state.unsettled, *state.undecided, *state.audits_open}
    return (state.leases[lease_id].order for lease_id in lease_ids)


def forgotten_sentence(state: SwarmState, key: LineageKey, version: int) -> str:
    """Why there is no way back to a forgotten version, and to which ones there is."""
    kept = _spans(_standing(state, key))
    return (
        f"version {version} of expert {key[0]} is forgotten, its checkpoint is gone; kept are {kept} (the setting "
        "keep_versions says how many)"
    )


def _old_releases(state: SwarmState, keep: Keep) -> list[int]:
    if not keep.releases:
        return []
    published = [release.version for release in kept_releases(state) if release.manifest]
    return published[: -keep.releases]


def _versions_in_use(state: SwarmState, old_releases: set[int]) -> dict[LineageKey, set[int]]:
    used: dict[LineageKey, set[int]] = {}
    for order in orders_under_way(state):
        for key, version in _versions_of(order):
            used.setdefault(key, set()).add(version)
    for release in kept_releases(state):
        if release.version not in old_releases:
            for key, version in release.experts_by_key():
                used.setdefault(key, set()).add(version)
    return used


def _versions_of(order: Order) -> list[tuple[LineageKey, int]]:
    """Versions that an order names; what others rest on is the base of a contribution without a verdict."""
    match order:
        case TrainOrder() | MergeOrder():
            return [((order.cluster, order.lineage), order.base_version)]
        case ReleaseOrder():
            experts = [*order.experts, *order.standing]
            return [((expert.cluster, expert.lineage), expert.version) for expert in experts]
        case _:
            return []


def _remembered(state: SwarmState, key: LineageKey) -> list[int]:
    gone = state.forgotten.get(key, {})
    return [version.version for version in state.versions[key] if version.version not in gone]


def _standing(state: SwarmState, key: LineageKey) -> list[int]:
    withdrawn = state.withdrawn.get(key, set())
    return [version for version in _remembered(state, key) if version not in withdrawn]


def _spans(numbers: Iterable[int]) -> str:
    """Rising numbers in few words: 0, 3, 7 to 9."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        first = spans.pop()[0] if spans and spans[-1][1] == number - 1 else number
        spans.append((first, number))
    return ", ".join(f"{first} to {last}" if last > first else f"{first}" for first, last in spans)
