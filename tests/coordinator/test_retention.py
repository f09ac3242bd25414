"""What is forgotten and what never is: versions, releases, and every blob by its references."""

from dataclasses import replace

import pytest
from coordinator.audited_swarm import account, audited_rules
from coordinator.small_swarm import blob_named, rules, trained
from coordinator.test_version_steps import cut
from coordinator.tidied_swarm import CHARTER_BLOBS, TidiedSwarm
from msgspec import structs
from protocol.samples import BLOB, COORDINATOR, FOUNDER, NODE

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.administration import administer
from kinoswarm_coordinator.fold import fold
from kinoswarm_coordinator.fold_versions import MOMENTA_KEPT
from kinoswarm_coordinator.retention import Keep
from kinoswarm_coordinator.rolling_back import Rollback, rolled_back
from kinoswarm_coordinator.state import Rules, SwarmState
from kinoswarm_coordinator.version_steps import steps_to
from kinoswarm_protocol.admin import AdminAnswer, AdminRequest, RollBack
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.messages import MergeOrder, Refusal, TrainOrder

KEY = (0, 0)
FEW = Keep(versions=3, releases=1)
EVERYTHING = Keep(versions=0, releases=0)


def swarm_with(versions: int, keep: Keep = FEW) -> TidiedSwarm:
    """One expert and as many merges of one contribution each; a release after every one."""
    swarm = TidiedSwarm(rules(1, target_version=100, max_staleness=1, work_ahead=50.0), keep=keep)
    swarm.hello(NODE)
    swarm.hello(FOUNDER)
    for _ in range(versions):
        swarm.train(NODE)
        swarm.operate()
    assert swarm.state.newest(KEY).version == versions
    return swarm


def stale_by(rules: Rules, max_staleness: int) -> Rules:
    policy = structs.replace(rules.charter.policy, max_staleness=max_staleness)
    return replace(rules, charter=structs.replace(rules.charter, policy=policy))


def remembered(swarm: TidiedSwarm) -> list[int]:
    versions = swarm.state.versions[KEY]
    return [v.version for v in versions if not swarm.state.is_forgotten(KEY, v.version)]


def roll_back(swarm: TidiedSwarm, to_version: int) -> AdminAnswer:
    action = RollBack(cluster=0, lineage=0, to_version=to_version, sentence="clips flicker")
    asked = AdminRequest(request_id=f"{len(swarm.history):032x}", at_ms=swarm.now_ms, action=action)
    admins = frozenset({COORDINATOR.peer_id})
    result = administer(swarm.state, swarm.rules, admins, COORDINATOR.peer_id, asked, swarm.now_ms)
    swarm.record(result.events)
    return result.answer


def deltas_of(swarm: TidiedSwarm, version: int) -> set[BlobId]:
    contributions = swarm.state.versions[KEY][version].contributions
    assert contributions
    return {swarm.state.delta_of(lease_id) for lease_id in contributions}


def test_the_newest_versions_and_the_seed_stay_and_the_rest_goes_once() -> None:
    swarm = swarm_with(6)
    forgotten = swarm.forget()
    assert remembered(swarm) == [0, 4, 5, 6]
    assert [event.versions for event in forgotten] == [[1, 2, 3, 4, 5], [1, 2, 3]]
    assert swarm.forget() == []
    assert fold(SwarmState(), swarm.history) == swarm.state


def test_blobs_go_with_their_version() -> None:
    swarm = swarm_with(6)
    line = swarm.state.versions[KEY]
    gone = swarm.tidy()
    for version in line[1:]:
        is_kept = version.version >= 4
        assert (version.checkpoint in swarm.store) == is_kept
        assert (version.step in swarm.store) == is_kept
        assert (deltas_of(swarm, version.version) <= swarm.store) == is_kept
        assert (version.momentum in swarm.store) == is_kept
    assert BLOB in swarm.store
    assert swarm.store >= CHARTER_BLOBS
    assert swarm.tidy() == set()
    assert gone


def test_zero_keeps_every_version_and_release() -> None:
    swarm = swarm_with(6, EVERYTHING)
    assert swarm.forget() == []
    gone = swarm.tidy()
    momenta = [event.momentum for event in swarm.history if isinstance(event, ev.VersionCut)]
    assert gone == set(momenta[:-MOMENTA_KEPT])


@pytest.mark.parametrize(("staleness", "kept"), [(0, [0, 5, 6]), (3, [0, 2, 3, 4, 5, 6])])
def test_however_few_are_wanted_what_may_be_merged_or_taken_back_stays(
    staleness: int, kept: list[int]
) -> None:
    swarm = swarm_with(6, Keep(versions=1, releases=1))
    swarm.rules = stale_by(swarm.rules, staleness)
    swarm.forget()
    assert remembered(swarm) == kept


def test_the_base_of_an_open_lease_and_of_unjudged_work_stays() -> None:
    swarm = swarm_with(2)
    swarm.leased(FOUNDER)
    third = account(77)
    swarm.hello(third)
    for _ in range(4):
        swarm.train(NODE)
        swarm.operate()
    lease = swarm.leased(third)
    swarm.submit(third, lease, trained(lease))
    swarm.forget()
    assert remembered(swarm) == [0, 2, 4, 5, 6]


def test_releases_that_stay_keep_their_versions() -> None:
    swarm = swarm_with(3)
    named = swarm.state.releases[-1]
    assert named.expert_versions == [3]
    for version in range(4, 9):
        cut(swarm, version, step=False)
    swarm.tidy()
    assert remembered(swarm) == [0, 3, 6, 7, 8]
    assert swarm.state.forgotten_releases == {1, 2}
    assert swarm.state.versions[KEY][3].checkpoint in swarm.store
    assert {named.files[0].blob, named.manifest} <= swarm.store


def test_a_release_that_is_not_published_stays_and_so_does_the_newest_published() -> None:
    swarm = swarm_with(4)
    for version in (3, 4):
        release = swarm.state.releases[version - 1]
        swarm.state.releases[version - 1] = structs.replace(release, manifest=None)
    swarm.forget()
    assert swarm.state.forgotten_releases == {1}


def test_an_operators_way_back_ends_where_versions_are_forgotten() -> None:
    swarm = swarm_with(6)
    swarm.tidy()
    refused = roll_back(swarm, 2)
    assert not refused.done
    assert "kept are 0, 4 to 6 (the setting keep_versions" in refused.sentence
    assert roll_back(swarm, 4).done
    assert swarm.state.newest(KEY).checkpoint in swarm.store
    assert roll_back(swarm, 0).done
    swarm.tidy()
    assert swarm.state.newest(KEY).checkpoint in swarm.store


def test_what_stood_in_forgotten_versions_alone_is_never_merged_again() -> None:
    """A rollback further than any audit goes: to the seed, over versions whose deltas are gone."""
    swarm = swarm_with(4)
    swarm.tidy()
    lenient = stale_by(swarm.rules, 9)
    wanted = Rollback(
        key=KEY, to_version=0, sentence="tainted", refused=frozenset(), keeps_resting=True
    )
    events = rolled_back(swarm.state, lenient, wanted, swarm.now_ms)
    rolled = next(event for event in events if isinstance(event, ev.VersionRolledBack))
    first = swarm.state.versions[KEY][1].contributions
    assert swarm.state.is_forgotten(KEY, 1)
    assert set(first) <= set(rolled.contributions)
    assert all(swarm.state.delta_of(lease_id) in swarm.store for lease_id in rolled.reopened)


def test_good_work_of_kept_versions_can_be_merged_anew_after_a_round() -> None:
    swarm = swarm_with(5)
    swarm.tidy()
    wanted = Rollback(
        key=KEY, to_version=4, sentence="tainted", refused=frozenset(), keeps_resting=True
    )
    swarm.record(rolled_back(swarm.state, swarm.rules, wanted, swarm.now_ms))
    reopened = set(swarm.state.unmerged[KEY])
    assert reopened == set(swarm.state.versions[KEY][5].contributions)
    swarm.tidy()
    merge = swarm.leased(COORDINATOR)
    assert isinstance(merge.order, MergeOrder)
    assert {merge.order.base, *(d.delta for d in merge.order.deltas)} <= swarm.store


def test_late_work_on_a_forgotten_base_is_refused_with_the_reason() -> None:
    swarm = swarm_with(1)
    lease = swarm.leased(FOUNDER)
    swarm.now_ms = lease.deadline_ms
    swarm.expire()
    for _ in range(6):
        swarm.train(NODE)
        swarm.operate()
    swarm.tidy()
    refused = swarm.submit(FOUNDER, lease, trained(lease)).say
    assert isinstance(refused, Refusal)
    assert refused.code == "stale_base"
    assert "no longer kept" in refused.sentence


def test_no_step_leads_over_a_forgotten_version_and_an_open_lease_keeps_its_own() -> None:
    swarm = swarm_with(6)
    lease = swarm.leased(FOUNDER)
    offered = steps_to(swarm.state, lease.order)
    assert len(offered) == 6
    swarm.tidy()
    assert {step.delta for step in offered} <= swarm.store, "its node may be fetching them"
    assert len(steps_to(swarm.state, lease.order)) == 3
    swarm.now_ms += 1
    later = swarm.leased(NODE)
    swarm.finish(FOUNDER, lease, trained(lease))
    swarm.tidy()
    left = {step.delta for step in steps_to(swarm.state, later.order)}
    assert {step.delta for step in offered} & swarm.store == left


def test_what_was_refused_or_quarantined_goes_and_what_waits_stays() -> None:
    swarm = swarm_with(0)
    refused = swarm.train(NODE)
    swarm.operate(worse=True)
    waiting = swarm.train(NODE)
    assert swarm.tidy() == {swarm.state.delta_of(LeaseId(refused.lease_id))}
    assert swarm.state.delta_of(LeaseId(waiting.lease_id)) in swarm.store


def test_a_merge_under_way_keeps_all_it_was_given_when_it_is_overtaken() -> None:
    swarm = swarm_with(3)
    swarm.train(NODE)
    evaluation = swarm.leased(COORDINATOR)
    swarm.finish(COORDINATOR, evaluation, swarm.trusted_outcome(evaluation, False))
    merge = swarm.leased(COORDINATOR)
    assert isinstance(merge.order, MergeOrder)
    assert roll_back(swarm, 2).done
    swarm.tidy()
    assert {merge.order.base, *(delta.delta for delta in merge.order.deltas)} <= swarm.store


def test_an_open_audit_keeps_its_base_and_runs_however_far_the_lineage_went() -> None:
    swarm = TidiedSwarm(audited_rules(1, audit_wait_s=1e6, max_staleness=0))
    newcomer, _, _ = swarm.joined(1, 2, 3)
    audited = swarm.work(newcomer)
    order = swarm.state.leases[audited].order
    assert isinstance(order, TrainOrder)
    assert audited in swarm.state.audits_open
    for version in range(1, 9):
        cut(swarm, version, step=False)
    swarm.tidy()
    assert {order.base, swarm.state.delta_of(audited)} <= swarm.store


def test_runs_of_one_order_that_are_the_same_bytes_share_one_fate() -> None:
    """The copy of an audit settles after the first run's version was forgotten: the bytes are its too."""
    swarm = TidiedSwarm(audited_rules(1, audit_first=1), alike=True)
    first, second = swarm.joined(1, 2)
    audited = swarm.work(first)
    swarm.operate()
    copy = swarm.leased(second)
    assert swarm.state.audit_of[LeaseId(copy.lease_id)] == audited
    swarm.submit(second, copy, swarm.run(second, copy))
    delta = swarm.state.delta_of(audited)
    assert swarm.state.delta_of(LeaseId(copy.lease_id)) == delta
    rejected = swarm.state.work[audited].verdict
    assert rejected is not None
    bad = structs.replace(rejected, state="rejected", code="audit_mismatch")
    swarm.record([ev.VerdictGiven(at_ms=swarm.now_ms, verdict=bad)])
    assert audited not in swarm.state.audits_open
    assert delta not in swarm.tidy(), "the copy has no verdict yet"
    swarm.blobs_arrive(copy)
    swarm.operate()
    assert swarm.state.work[LeaseId(copy.lease_id)].verdict is not None
    assert delta in swarm.tidy()


@pytest.mark.parametrize("blob", [BLOB, *sorted(CHARTER_BLOBS)])
def test_nobody_has_a_blob_of_the_charter_deleted_by_handing_it_in(blob: BlobId) -> None:
    swarm = swarm_with(2)
    lease = swarm.leased(NODE)
    swarm.submit(NODE, lease, structs.replace(trained(lease), delta=blob))
    if LeaseId(lease.lease_id) in swarm.state.unsettled:
        swarm.blobs_arrive(lease)
    swarm.operate(worse=True)
    assert blob not in swarm.tidy()


def test_a_blob_that_the_log_never_named_is_not_touched() -> None:
    swarm = swarm_with(6)
    stranger = blob_named("put here by hand")
    swarm.store.add(stranger)
    swarm.tidy()
    assert stranger in swarm.store
