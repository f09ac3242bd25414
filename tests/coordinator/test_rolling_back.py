"""Rollbacks: what comes back, in which order good work is merged anew, and what an operator's hand takes away."""

from dataclasses import replace

import pytest
from coordinator.audited_swarm import account
from coordinator.small_swarm import SmallSwarm, blob_named, rules, trained, trusted_outcome
from coordinator.test_retention import NODE, swarm_with
from coordinator.test_version_steps import cut
from msgspec import structs
from protocol.samples import COORDINATOR

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator import trusted_work
from kinoswarm_coordinator.audit_findings import oldest_tainted
from kinoswarm_coordinator.fold import fold
from kinoswarm_coordinator.fold_versions import MOMENTA_KEPT
from kinoswarm_coordinator.rolling_back import Rollback, rolled_back
from kinoswarm_coordinator.scheduling import samples_under_way
from kinoswarm_coordinator.state import Rules, SwarmState
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.messages import (
    EvaluateOrder,
    Lease,
    MergeOrder,
    MergeOutcome,
    NoWork,
    ReleaseOrder,
)

KEY = (0, 0)


def rollback_to(
    swarm: SmallSwarm, version: int, refused: list[LeaseId], keeps_resting: bool = True
) -> ev.VersionRolledBack:
    wanted = Rollback(
        key=KEY,
        to_version=version,
        sentence="x",
        refused=frozenset(refused),
        keeps_resting=keeps_resting,
    )
    events = rolled_back(swarm.state, swarm.rules, wanted, swarm.now_ms)
    swarm.record(events)
    assert isinstance(events[-1], ev.VersionRolledBack)
    return events[-1]


def swarm_with_three_versions() -> tuple[SmallSwarm, list[LeaseId]]:
    """Each of one contribution that began at the seed."""
    swarm = SmallSwarm(rules(1, target_version=50, work_ahead=4.0, max_staleness=9))
    keys = [account(number) for number in (1, 2, 3)]
    leases = []
    for key in keys:
        swarm.hello(key)
        leases.append(swarm.leased(key))
    for key, lease in zip(keys, leases, strict=True):
        swarm.finish(key, lease, trained(lease))
        swarm.operate()
    assert swarm.state.newest((0, 0)).version == 3
    return swarm, [LeaseId(lease.lease_id) for lease in leases]


def swarm_of_steps(count: int) -> tuple[SmallSwarm, list[list[LeaseId]]]:
    """So many versions, each of two contributions that began at the one before."""
    swarm = SmallSwarm(
        rules(1, target_version=50, work_ahead=9.0, max_staleness=9, quorum_samples=300)
    )
    keys = [account(1), account(2)]
    for key in keys:
        swarm.hello(key)
    return swarm, more_steps(swarm, count)


def more_steps(swarm: SmallSwarm, count: int) -> list[list[LeaseId]]:
    keys, made = [account(1), account(2)], []
    for _ in range(count):
        leases = [swarm.leased(key) for key in keys]
        for key, lease in zip(keys, leases, strict=True):
            swarm.finish(key, lease, trained(lease))
        operate(swarm)
        made.append([LeaseId(lease.lease_id) for lease in leases])
    assert swarm.state.newest(KEY).version == count
    return made


def operate(swarm: SmallSwarm) -> None:
    """The operator's worker until it has nothing to do; its merges keep momentum."""
    while isinstance(lease := swarm.pull(COORDINATOR), Lease):
        outcome = trusted_outcome(lease)
        if isinstance(outcome, MergeOutcome):
            momentum = blob_named(f"momentum {lease.lease_id}")
            outcome = structs.replace(outcome, momentum=momentum)
        swarm.finish(COORDINATOR, lease, outcome)


def standing(swarm: SmallSwarm) -> list[list[LeaseId]]:
    """The contributions of the versions that no rollback took away."""
    withdrawn = swarm.state.withdrawn.get(KEY, set())
    line = swarm.state.versions[KEY][1:]
    return [
        sorted(one.contributions)
        for one in line
        if one.version not in withdrawn and one.contributions
    ]


def test_good_work_of_withdrawn_versions_is_merged_anew_one_version_after_the_other() -> None:
    """One found-out account must not cost everybody else what they did since."""
    swarm, steps = swarm_of_steps(4)
    liar = steps[1][0]
    rolled = rollback_to(swarm, 1, [liar])
    good = [steps[1][1], *steps[2], *steps[3]]
    assert sorted(rolled.reopened) == sorted(good)
    assert rolled.contributions == []
    assert list(swarm.state.mergeable[KEY]) == [steps[1][1]]
    swarm.now_ms += 11_000
    operate(swarm)
    assert standing(swarm) == [
        sorted(steps[0]),
        [steps[1][1]],
        sorted(steps[2]),
        sorted(steps[3]),
    ]
    assert all(swarm.state.work[lease_id].phase == "merged" for lease_id in good)
    assert swarm.state.newest(KEY).position == 4
    assert not swarm.state.ahead
    assert fold(SwarmState(), swarm.history) == swarm.state


def test_where_nothing_is_left_of_a_version_those_after_it_do_not_wait_for_it() -> None:
    swarm, steps = swarm_of_steps(3)
    rollback_to(swarm, 0, [*steps[0], *steps[1]])
    assert sorted(swarm.state.mergeable[KEY]) == sorted(steps[2])
    operate(swarm)
    assert standing(swarm) == [sorted(steps[2])]
    assert not swarm.state.ahead


def test_a_merge_anew_that_fails_its_test_does_not_block_what_comes_after() -> None:
    swarm, steps = swarm_of_steps(3)
    rollback_to(swarm, 0, [steps[0][0]])
    swarm.now_ms += 11_000
    merge = swarm.leased(COORDINATOR)
    assert isinstance(merge.order, MergeOrder)
    swarm.finish(COORDINATOR, merge, trusted_outcome(merge, True))
    assert swarm.state.work[steps[0][1]].phase == "quarantined"
    assert sorted(swarm.state.mergeable[KEY]) == sorted(steps[1])
    operate(swarm)
    assert standing(swarm) == [sorted(steps[1]), sorted(steps[2])]


def test_nobody_is_given_work_that_would_be_stale_before_it_is_done() -> None:
    swarm, steps = swarm_of_steps(3)
    rollback_to(swarm, 0, [steps[0][0]])
    assert isinstance(swarm.pull(account(1)), NoWork)
    operate(swarm)
    assert isinstance(swarm.pull(account(1)), Lease)


def test_work_on_a_base_that_stands_is_merged_before_what_waits_for_its_own() -> None:
    """It came late. A merge of what rests ahead, begun for want of any other, is made anew in its turn."""
    swarm, steps = swarm_of_steps(0)
    swarm.hello(account(3))
    late = swarm.leased(account(3))
    steps = more_steps(swarm, 2)
    rollback_to(swarm, 0, [*steps[0], steps[1][0]])
    merge = swarm.leased(COORDINATOR)
    assert isinstance(merge.order, MergeOrder)
    swarm.submit(COORDINATOR, merge, trusted_outcome(merge))
    swarm.finish(account(3), late, trained(late))
    evaluate = swarm.leased(COORDINATOR)
    assert isinstance(evaluate.order, EvaluateOrder)
    swarm.finish(COORDINATOR, evaluate, trusted_outcome(evaluate))
    swarm.blobs_arrive(merge)
    swarm.now_ms += 11_000
    operate(swarm)
    assert standing(swarm) == [[LeaseId(late.lease_id)], [steps[1][1]]]
    assert not swarm.state.ahead


def test_the_momentum_comes_back_with_its_version() -> None:
    swarm, steps = swarm_of_steps(3)
    momentum = swarm.state.versions[KEY][1].momentum
    assert momentum is not None
    rolled = rollback_to(swarm, 1, [steps[1][0]])
    assert rolled.momentum == momentum
    operate(swarm)
    merges = [
        lease.order for lease in swarm.state.leases.values() if isinstance(lease.order, MergeOrder)
    ]
    again = [order for order in merges if order.base_version > 3]
    assert [len(order.deltas) for order in again] == [1, 2]
    assert again[0].momentum is None, "a single contribution is taken as it is"
    rollback_to(swarm, 2, [])
    assert swarm.state.newest(KEY).momentum == swarm.state.versions[KEY][2].momentum


def test_momentum_is_kept_of_the_newest_versions_alone() -> None:
    swarm, _ = swarm_of_steps(6)
    kept: list[BlobId | None] = [one.momentum for one in swarm.state.versions[KEY]]
    assert [momentum is not None for momentum in kept] == [False] * 3 + [True] * MOMENTA_KEPT
    assert rollback_to(swarm, 2, []).momentum is None


def test_an_operators_rollback_merges_nothing_anew_and_sets_aside_what_rested_there() -> None:
    swarm, steps = swarm_of_steps(2)
    resting = swarm.train(account(1))
    evaluate = swarm.leased(COORDINATOR)
    swarm.finish(COORDINATOR, evaluate, trusted_outcome(evaluate))
    rolled = rollback_to(swarm, 1, steps[1], keeps_resting=False)
    assert rolled.reopened == []
    assert rolled.contributions == [resting.lease_id]
    assert not swarm.state.unmerged[KEY]


def test_an_expert_is_trained_to_its_goal_again() -> None:
    """The goal counts merges: version 4 with the content of version 1 has two of three before it."""
    swarm, steps = swarm_of_steps(3)
    policy = structs.replace(swarm.rules.charter.policy, target_version=3)
    swarm.rules = replace(swarm.rules, charter=structs.replace(swarm.rules.charter, policy=policy))
    assert isinstance(swarm.pull(account(1)), NoWork)
    rollback_to(swarm, 1, [*steps[1], *steps[2]], keeps_resting=False)
    assert isinstance(swarm.pull(account(1)), Lease)


def test_accepted_work_on_a_withdrawn_version_waits_for_its_turn() -> None:
    swarm, steps = swarm_of_steps(2)
    resting = LeaseId(swarm.train(account(1)).lease_id)
    evaluate = swarm.leased(COORDINATOR)
    swarm.finish(COORDINATOR, evaluate, trusted_outcome(evaluate))
    rolled = rollback_to(swarm, 1, [steps[1][0]])
    assert rolled.contributions == []
    assert list(swarm.state.mergeable[KEY]) == [steps[1][1]]
    swarm.now_ms += 11_000
    operate(swarm)
    assert standing(swarm) == [sorted(steps[0]), [steps[1][1]], [resting]]


def test_what_an_open_audit_looks_at_is_not_merged_anew() -> None:
    """The audit ends with its base, so nobody would ever look at it: a fellow's exposure must not wash work clean."""
    swarm, steps = swarm_of_steps(3)
    looked_at = steps[2][0]
    opened = ev.AuditOpened(at_ms=swarm.now_ms, lease_id=looked_at, holds=False)
    swarm.record([opened])
    rolled = rollback_to(swarm, 1, [steps[1][0]])
    assert swarm.state.audits[looked_at].result == "moot"
    assert rolled.contributions == [looked_at]
    swarm.now_ms += 11_000
    operate(swarm)
    assert standing(swarm) == [sorted(steps[0]), [steps[1][1]], [steps[2][1]]]


def test_an_earlier_rollback_hides_no_liar() -> None:
    """How far an audit goes back is counted in merges: versions that were taken back since are none."""
    swarm, steps = swarm_of_steps(5)
    swarm.rules = with_reach(swarm.rules, 3)
    first, second = steps[3][0], steps[2][0]
    rollback_to(swarm, 3, [first])
    operate(swarm)
    assert swarm.state.newest(KEY).position == 5
    assert oldest_tainted(swarm.state, swarm.rules, {second}) == {KEY: 3}


def test_an_operators_rollback_ends_what_an_audit_had_merged_anew() -> None:
    swarm, steps = swarm_of_steps(4)
    rollback_to(swarm, 1, [steps[1][0]])
    merge = swarm.leased(COORDINATOR)
    swarm.finish(COORDINATOR, merge, trusted_outcome(merge))
    rolled = rollback_to(swarm, 5, [steps[1][1]], keeps_resting=False)
    assert sorted(rolled.contributions) == sorted([*steps[2], *steps[3]])
    operate(swarm)
    assert standing(swarm) == [sorted(steps[0])]
    assert not swarm.state.ahead


def test_a_release_of_a_version_that_was_withdrawn_meanwhile_comes_to_nothing() -> None:
    swarm = swarm_with(0)
    swarm.operate()
    first = LeaseId(swarm.train(NODE).lease_id)
    release = swarm.leased(COORDINATOR)
    while not isinstance(release.order, ReleaseOrder):
        swarm.finish(COORDINATOR, release, swarm.trusted_outcome(release, False))
        release = swarm.leased(COORDINATOR)
    assert [expert.version for expert in release.order.experts] == [1]
    rollback_to(swarm, 0, [first])
    swarm.finish(COORDINATOR, release, swarm.trusted_outcome(release, False))
    assert swarm.state.releases == []
    again = swarm.leased(COORDINATOR).order
    assert isinstance(again, ReleaseOrder)
    assert [expert.version for expert in again.experts] == [2]


def with_reach(rules: Rules, versions: int) -> Rules:
    """An audit takes back so many."""
    policy = structs.replace(rules.charter.policy, max_staleness=versions - 1)
    return replace(rules, charter=structs.replace(rules.charter, policy=policy))


def test_work_that_was_taken_back_twice_is_counted_once() -> None:
    """A lineage whose samples under way are counted too high is given no work any more."""
    swarm, (_, second, third) = swarm_with_three_versions()
    before = samples_under_way(swarm.state, (0, 0))
    rollback_to(swarm, 1, [second])
    swarm.operate()
    assert swarm.state.work[third].phase == "merged"
    rollback_to(swarm, 1, [second])
    assert swarm.state.work[third].phase == "accepted"
    samples = swarm.state.leases[third].samples
    assert samples_under_way(swarm.state, (0, 0)) == before + samples


def test_a_later_rollback_brings_nothing_back_that_an_earlier_one_withdrew() -> None:
    swarm, (first, second, third) = swarm_with_three_versions()
    rollback_to(swarm, 1, [second, third])
    rollback_to(swarm, 0, [first])
    assert not swarm.state.unmerged[0, 0]


def test_stale_work_of_newcomers_shortens_nobodys_step_by_more_than_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unproven accounts weigh half at most, so their staleness counts for half at most."""
    policy = {"work_ahead": 99.0, "max_staleness": 9, "quorum_samples": 10**9}
    swarm = SmallSwarm(rules(1, target_version=50, unproven_share=0.5, audit_one_in=0, **policy))
    proven, *others = [account(number) for number in range(1, 8)]
    for key in (proven, *others):
        swarm.hello(key)
    slow = [(key, swarm.leased(key)) for key in others]
    cut(swarm, 1, step=False)
    fresh = swarm.leased(proven)
    for key, lease in [(proven, fresh), *slow]:
        swarm.finish(key, lease, trained(lease))
    operate(swarm)
    monkeypatch.setattr(trusted_work, "is_proven", lambda state, rules, who: who == proven.peer_id)
    order = trusted_work.merge_order(swarm.state, swarm.rules, KEY, seed=1)
    weights = {delta.contribution: delta.weight for delta in order.deltas}
    share = weights[fresh.lease_id] / sum(weights.values())
    assert share == pytest.approx(0.5)
    assert order.freshness == pytest.approx(1.0 / (share + (1.0 - share) / 0.5))
    assert order.freshness > 0.6
