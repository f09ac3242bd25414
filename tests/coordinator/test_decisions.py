"""Leases, verdicts, versions and releases as pure decisions."""

import pytest
from coordinator.small_swarm import SmallSwarm, rules, trained, trusted_outcome
from msgspec import structs
from protocol.samples import BLOB, COORDINATOR, NODE

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.credit import ledger_of
from kinoswarm_coordinator.fold import fold
from kinoswarm_coordinator.scheduling import segment_steps
from kinoswarm_coordinator.state import Ban, SwarmState
from kinoswarm_coordinator.status import phase_sentence
from kinoswarm_coordinator.submissions import unavailable
from kinoswarm_coordinator.trust import MOST_REFUSED
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import (
    AskVerdicts,
    FailedOutcome,
    MergeOrder,
    MergeOutcome,
    NoWork,
    Progress,
    ProgressNoted,
    Refusal,
    Submit,
    TrainOrder,
)
from kinoswarm_protocol.specs import ModeSpec

ALICE, BOB = NODE, KeyPair(bytes(range(3, 35)))


@pytest.fixture
def swarm() -> SmallSwarm:
    swarm = SmallSwarm()
    swarm.hello(ALICE)
    swarm.hello(BOB)
    return swarm


def order_of(lease) -> TrainOrder:
    assert isinstance(lease.order, TrainOrder)
    return lease.order


def test_a_stranger_is_told_to_say_hello_first() -> None:
    from kinoswarm_protocol.messages import PullLease

    body = PullLease(modes=[ModeSpec(name="full")], clusters_on_disk=[], seconds_per_step=0.0)
    say = SmallSwarm().ask(ALICE, body).say
    assert isinstance(say, Refusal)
    assert "say hello" in say.sentence


def test_two_nodes_get_the_two_neediest_clusters(swarm: SmallSwarm) -> None:
    first, second = order_of(swarm.leased(ALICE)), order_of(swarm.leased(BOB))
    assert {first.cluster, second.cluster} == {0, 1}
    assert first.base_version == second.base_version == 0
    assert first.seed != second.seed


def test_the_same_pull_again_gets_the_same_lease(swarm: SmallSwarm) -> None:
    once = swarm.pull(ALICE, "a" * 32)
    assert swarm.pull(ALICE, "a" * 32) == once
    assert len(swarm.state.leases) == 1


def test_a_node_cannot_hoard_leases(swarm: SmallSwarm) -> None:
    assert swarm.leased(ALICE) == swarm.leased(ALICE)
    assert len(swarm.state.open_leases) == 1


def test_shards_on_disk_decide_between_equal_needs(swarm: SmallSwarm) -> None:
    from kinoswarm_coordinator.requests import SayLease
    from kinoswarm_protocol.messages import PullLease

    body = PullLease(modes=[ModeSpec(name="full")], clusters_on_disk=[1], seconds_per_step=0.5)
    say = swarm.ask(ALICE, body).say
    assert isinstance(say, SayLease)
    assert order_of(say.lease).cluster == 1


def test_a_lease_fixes_the_first_of_the_nodes_modes_that_the_charter_lists(
    swarm: SmallSwarm,
) -> None:
    from kinoswarm_coordinator.requests import SayLease
    from kinoswarm_protocol.messages import PullLease

    def pull(*modes: ModeSpec) -> object:
        return swarm.ask(
            ALICE, PullLease(modes=list(modes), clusters_on_disk=[], seconds_per_step=0.5)
        ).say

    foreign, full = ModeSpec(name="lora", rank=99), ModeSpec(name="full")
    refused = pull(foreign)
    assert isinstance(refused, NoWork)
    assert "none of the ways" in refused.sentence
    say = pull(foreign, full)
    assert isinstance(say, SayLease)
    assert order_of(say.lease).mode == full


def test_a_segment_lasts_as_long_as_the_policy_wants() -> None:
    wanted = rules(segment_s=20.0, segment_steps_min=5, segment_steps_max=100)
    assert segment_steps(wanted, 0.5) == 40
    assert segment_steps(wanted, 0.001) == 100
    assert segment_steps(wanted, 1000.0) == 5
    assert segment_steps(wanted, 0.0) == 25


def test_an_expired_lease_goes_to_somebody_else() -> None:
    swarm = SmallSwarm(rules(1))
    swarm.hello(ALICE)
    swarm.hello(BOB)
    lost = swarm.leased(ALICE)
    assert isinstance(swarm.pull(BOB), NoWork)
    swarm.now_ms = lost.deadline_ms
    swarm.expire()
    assert swarm.state.leases[LeaseId(lost.lease_id)].phase == "expired"
    assert swarm.leased(BOB).node == BOB.peer_id


def test_late_work_on_a_fresh_enough_base_is_still_welcome(swarm: SmallSwarm) -> None:
    lease = swarm.leased(ALICE)
    swarm.now_ms = lease.deadline_ms + 1
    swarm.expire()
    swarm.finish(ALICE, lease, trained(lease))
    swarm.operate()
    assert swarm.state.work[LeaseId(lease.lease_id)].phase == "merged"


def test_work_on_a_base_too_old_is_credited_and_not_merged() -> None:
    swarm = SmallSwarm(rules(1, max_staleness=0))
    swarm.hello(ALICE)
    swarm.hello(BOB)
    late = swarm.leased(ALICE)
    swarm.now_ms = late.deadline_ms + 1
    swarm.expire()
    swarm.train(BOB)
    swarm.operate()
    swarm.finish(ALICE, late, trained(late))
    swarm.operate()
    work = swarm.state.work[LeaseId(late.lease_id)]
    assert work.phase == "credited"
    assert work.verdict is not None
    assert work.verdict.state == "accepted"
    assert "Nothing is wrong with your machine" in work.verdict.sentence
    assert ledger_of(swarm.history, 1.0).by_peer[ALICE.peer_id] > 0
    assert not swarm.state.unmerged[0, 0]


def test_the_whole_way_from_training_to_a_release(swarm: SmallSwarm) -> None:
    leases = [swarm.train(ALICE), swarm.train(BOB)]
    did = swarm.operate()
    assert did.count("EvaluateOrder") == 2
    assert did.count("MergeOrder") == 2
    assert did.count("RouteOrder") == 1
    assert did.count("ReleaseOrder") == 1
    assert [line[-1].version for line in swarm.state.versions.values()] == [1, 1]
    assert all(swarm.state.work[LeaseId(lease.lease_id)].phase == "merged" for lease in leases)
    assert swarm.state.nodes[ALICE.peer_id].accepted == 1
    assert swarm.state.versions[0, 0][0].heldout_loss == 1.0
    assert swarm.state.versions[0, 0][1].heldout_loss == pytest.approx(0.9)


def test_the_last_release_holds_every_expert_at_its_target(swarm: SmallSwarm) -> None:
    """One expert lags when the first release is made; the run must not end without a complete one."""
    swarm.train(ALICE)
    swarm.train(BOB)
    swarm.operate()
    ahead = swarm.train(ALICE)
    swarm.operate()
    assert swarm.state.versions[order_of(ahead).cluster, 0][-1].version == 2
    assert swarm.state.releases[-1].expert_versions == [1, 1]
    swarm.train(BOB)
    swarm.operate()
    assert swarm.state.releases[-1].expert_versions == [2, 2]
    assert swarm.operate() == []


def test_a_release_made_with_a_laggard_is_followed_by_a_complete_one(swarm: SmallSwarm) -> None:
    """Expert 0 had reached its target when the first release was made: it can't get newer any more."""
    first, second = swarm.leased(ALICE), swarm.leased(BOB)
    assert order_of(first).cluster == 0
    swarm.finish(ALICE, first, trained(first))
    swarm.operate()
    third = swarm.leased(ALICE)
    assert order_of(third).cluster == 0
    swarm.finish(ALICE, third, trained(third))
    swarm.operate()
    swarm.finish(BOB, second, trained(second))
    swarm.operate()
    assert swarm.state.releases[-1].expert_versions == [2, 1]
    swarm.train(BOB)
    swarm.operate()
    assert swarm.state.releases[-1].expert_versions == [2, 2]


def test_training_rests_when_every_expert_has_its_target(swarm: SmallSwarm) -> None:
    for _ in range(2):
        swarm.train(ALICE)
        swarm.train(BOB)
        swarm.operate()
    answer = swarm.pull(ALICE)
    assert isinstance(answer, NoWork)
    assert "reached version 2" in answer.sentence


def test_worse_work_is_rejected_with_a_sentence_and_changes_nothing(swarm: SmallSwarm) -> None:
    lease = swarm.train(ALICE)
    swarm.operate(worse=True)
    work = swarm.state.work[LeaseId(lease.lease_id)]
    assert work.verdict is not None
    assert work.verdict.state == "rejected"
    assert "held-out loss got worse by 50.00%" in work.verdict.sentence
    assert swarm.state.newest((order_of(lease).cluster, 0)).version == 0
    assert swarm.state.nodes[ALICE.peer_id].rejected == 1
    assert isinstance(swarm.leased(ALICE).order, TrainOrder)


def test_a_merged_version_that_is_worse_is_quarantined_and_the_old_one_stays(
    swarm: SmallSwarm,
) -> None:
    lease = swarm.train(ALICE)
    evaluate = swarm.leased(COORDINATOR)
    swarm.finish(COORDINATOR, evaluate, trusted_outcome(evaluate))
    merge = swarm.leased(COORDINATOR)
    assert isinstance(merge.order, MergeOrder)
    bad = trusted_outcome(merge, worse=True)
    assert isinstance(bad, MergeOutcome)
    swarm.finish(COORDINATOR, merge, bad)
    assert isinstance(swarm.history[-1], ev.MergeQuarantined)
    assert swarm.state.work[LeaseId(lease.lease_id)].phase == "quarantined"
    assert swarm.state.newest((order_of(lease).cluster, 0)).version == 0


def test_a_single_contributor_is_merged_at_rate_one(swarm: SmallSwarm) -> None:
    swarm.train(ALICE)
    evaluate = swarm.leased(COORDINATOR)
    swarm.finish(COORDINATOR, evaluate, trusted_outcome(evaluate))
    order = swarm.leased(COORDINATOR).order
    assert isinstance(order, MergeOrder)
    assert (order.outer_rate, order.outer_momentum) == (1.0, 0.0)


def test_several_contributors_are_merged_in_the_order_of_their_ids() -> None:
    swarm = SmallSwarm(rules(1, quorum_samples=1_000, segment_steps_max=40, segment_s=20.0))
    for key in (ALICE, BOB):
        swarm.hello(key)
    leases = [swarm.train(ALICE), swarm.train(BOB)]
    evaluate = swarm.leased(COORDINATOR)
    swarm.finish(COORDINATOR, evaluate, trusted_outcome(evaluate))
    swarm.now_ms += 60_000
    order = swarm.leased(COORDINATOR).order
    assert isinstance(order, MergeOrder)
    assert [d.contribution for d in order.deltas] == sorted(lease.lease_id for lease in leases)
    assert order.outer_rate == 0.7


def test_foreign_unknown_and_mismatched_submissions_are_refused(swarm: SmallSwarm) -> None:
    lease = swarm.leased(ALICE)
    foreign = swarm.submit(BOB, lease, trained(lease)).say
    assert isinstance(foreign, Refusal)
    assert foreign.code == "lease_foreign"
    unknown = structs.replace(lease, lease_id="f" * 32)
    say = swarm.submit(ALICE, unknown, trained(lease)).say
    assert isinstance(say, Refusal)
    assert say.code == "unknown_lease"
    other = swarm.leased(COORDINATOR)
    say = swarm.submit(ALICE, lease, trusted_outcome(other)).say
    assert isinstance(say, Refusal)
    assert "a train lease wants a TrainOutcome" in say.sentence
    garbled = swarm.ask(ALICE, Submit(contribution=b"garbage")).say
    assert isinstance(garbled, Refusal)
    assert garbled.code == "malformed"


def test_a_contribution_counts_once_however_often_it_is_sent(swarm: SmallSwarm) -> None:
    lease = swarm.leased(ALICE)
    swarm.submit(ALICE, lease, trained(lease))
    events = len(swarm.history)
    swarm.submit(ALICE, lease, trained(lease))
    assert len(swarm.history) == events


def test_an_honest_failure_frees_the_lease_at_once(swarm: SmallSwarm) -> None:
    lease = swarm.leased(ALICE)
    swarm.submit(ALICE, lease, FailedOutcome(code="work_failed", sentence="out of memory"))
    assert swarm.state.leases[LeaseId(lease.lease_id)].phase == "failed"
    assert swarm.state.nodes[ALICE.peer_id].failed == 1
    again = swarm.leased(BOB)
    assert order_of(again).cluster == order_of(lease).cluster


def test_a_delta_that_cannot_be_fetched_is_rejected_with_its_reason(swarm: SmallSwarm) -> None:
    lease = swarm.leased(ALICE)
    swarm.submit(ALICE, lease, trained(lease))
    work = swarm.state.work[LeaseId(lease.lease_id)]
    swarm.record(unavailable(swarm.state, work, swarm.now_ms, "nobody answered"))
    verdict = swarm.state.work[LeaseId(lease.lease_id)].verdict
    assert verdict is not None
    assert verdict.code == "blob_unavailable"
    assert "nobody answered" in verdict.sentence


def test_progress_tells_a_node_whether_its_lease_still_counts(swarm: SmallSwarm) -> None:
    lease = swarm.leased(ALICE)
    progress = Progress(lease_id=lease.lease_id, step=3, loss=0.5)
    assert swarm.ask(ALICE, progress).say == ProgressNoted(go_on=True, sentence="go on")
    foreign = swarm.ask(BOB, progress).say
    assert isinstance(foreign, Refusal)
    swarm.now_ms = lease.deadline_ms
    swarm.expire()
    noted = swarm.ask(ALICE, progress).say
    assert isinstance(noted, ProgressNoted)
    assert not noted.go_on
    assert "expired" in noted.sentence


def test_verdicts_are_told_only_to_whom_they_concern(swarm: SmallSwarm) -> None:
    lease = swarm.train(ALICE)
    swarm.operate()
    ask = AskVerdicts(lease_ids=[lease.lease_id])
    assert len(swarm.ask(ALICE, ask).say.verdicts) == 1
    assert swarm.ask(BOB, ask).say.verdicts == []


def test_trusted_work_is_never_given_to_a_volunteer(swarm: SmallSwarm) -> None:
    swarm.train(ALICE)
    assert isinstance(swarm.leased(BOB).order, TrainOrder)


def test_replaying_the_history_gives_the_same_state(swarm: SmallSwarm) -> None:
    swarm.train(ALICE)
    swarm.train(BOB)
    swarm.operate()
    assert fold(SwarmState(), swarm.history) == swarm.state


def test_the_phase_is_said_in_a_sentence(swarm: SmallSwarm) -> None:
    def phase() -> str:
        return phase_sentence(swarm.state, swarm.rules)

    assert phase() == "waiting for volunteers, every expert has version 0 of 2 or newer"
    lease = swarm.leased(ALICE)
    assert phase().startswith("training: 1 segment under way")
    swarm.finish(ALICE, lease, trained(lease))
    assert phase().startswith("checking and merging contributions")
    swarm.operate()
    for _ in range(3):
        swarm.train(ALICE)
        swarm.operate()
    assert phase() == "every expert has version 2; the release is being made"
    swarm.record([ev.ReleasePublished(at_ms=swarm.now_ms, version=2, manifest=BLOB)])
    assert phase() == "finished: every expert has version 2, release 2 is out"


def test_who_hands_in_bad_work_again_and_again_is_banned_ever_longer(swarm: SmallSwarm) -> None:
    def refused_until_banned() -> tuple[int, Ban]:
        for count in range(1, 20):
            swarm.train(ALICE)
            swarm.operate(worse=True)
            ban = swarm.state.ban_of(ALICE.peer_id, swarm.now_ms)
            if ban is not None:
                return count, ban
        raise AssertionError("never banned")

    count, first = refused_until_banned()
    assert count == MOST_REFUSED
    assert "5 contributions in a row were refused" in first.sentence
    assert isinstance(swarm.pull(ALICE), NoWork)
    lasted = first.until_ms - swarm.now_ms
    swarm.now_ms = first.until_ms
    count, second = refused_until_banned()
    assert count == MOST_REFUSED
    assert second.until_ms - swarm.now_ms == pytest.approx(2 * lasted, rel=0.01)


def test_good_work_between_bad_keeps_a_machine_from_a_ban(swarm: SmallSwarm) -> None:
    for turn in range(3 * MOST_REFUSED):
        swarm.train(ALICE)
        swarm.operate(worse=turn % MOST_REFUSED != 0)
    assert swarm.state.ban_of(ALICE.peer_id, swarm.now_ms) is None
