"""When a release is due and what may enter it; pure. What does is measured by the worker (kinoswarm_model.canary)."""

from kinoswarm_coordinator.state import LineageKey, Rules, SwarmState
from kinoswarm_protocol.messages import ExpertRef, ReleaseOrder

_PAIRS_FACTOR = 4
"""Held-out triples of a release's choice beside those of one contribution: small losses of many versions add up."""


def release_order(state: SwarmState, rules: Rules, seed: int) -> ReleaseOrder | None:
    """The order of the release that is due, or None."""
    clusters = range(len(rules.charter.clusters))
    if state.router is None or not _is_due(state, rules, considered(state, len(clusters))):
        return None
    policy = rules.charter.policy
    return ReleaseOrder(
        version=len(state.releases) + 1,
        experts=[
            _expert(state, key, state.newest(key).version)
            for cluster in clusters
            for key in lineages_of(state, cluster)
        ],
        standing=_standing(state),
        pairs=_PAIRS_FACTOR * policy.heldout_pairs,
        margin=policy.heldout_margin,
        router=state.router.blob,
        prompts=list(rules.prompts),
        seed=seed,
    )


def considered(state: SwarmState, num_clusters: int) -> list[int]:
    """The version that every cluster's furthest lineage has."""
    return [state.newest(state.furthest(cluster)).version for cluster in range(num_clusters)]


def lineages_of(state: SwarmState, cluster: int) -> list[LineageKey]:
    """Those that a release may take from: a lineage that nobody has trained is the seed once more."""
    trained = [
        (cluster, lineage)
        for lineage in range(state.num_lineages)
        if state.newest((cluster, lineage)).version
    ]
    return trained or [(cluster, 0)]


def _is_due(state: SwarmState, rules: Rules, newest: list[int]) -> bool:
    """Every expert is newer than when the last release was chosen, or all have reached their target.

    A version that was held back is not looked at again: the next one is.
    """
    before = state.releases[-1].considered if state.releases else [0] * len(newest)
    target = rules.charter.policy.target_version
    if state.release_wanted or (target and min(newest) >= target):
        return newest != before
    return all(new > old for new, old in zip(newest, before, strict=True))


def _standing(state: SwarmState) -> list[ExpertRef]:
    """The last release's experts, but for versions that were withdrawn since."""
    if not state.releases:
        return []
    return [
        _expert(state, key, version)
        for key, version in state.releases[-1].experts_by_key()
        if version not in state.withdrawn.get(key, set())
    ]


def _expert(state: SwarmState, key: LineageKey, version: int) -> ExpertRef:
    checkpoint = state.versions[key][version].checkpoint
    return ExpertRef(cluster=key[0], lineage=key[1], version=version, checkpoint=checkpoint)
