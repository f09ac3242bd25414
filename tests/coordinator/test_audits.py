"""Audits by duplicate lease: who does work again, what a comparison says, what follows from it."""

from collections.abc import Iterator

import pytest
from coordinator.audited_swarm import AuditedSwarm, account, audited_rules
from coordinator.small_swarm import SmallSwarm, rules, trusted_outcome
from coordinator.test_accounts import paper
from protocol.samples import COORDINATOR

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.audit_band import HONEST_DISTANCE, KEPT, LEAST, allowed_distance
from kinoswarm_coordinator.credit import ledger_of
from kinoswarm_coordinator.fold import fold
from kinoswarm_coordinator.scheduling import leased_steps
from kinoswarm_coordinator.state import SwarmState
from kinoswarm_coordinator.trust import is_proven, trust_of
from kinoswarm_coordinator.verdicts import rejected
from kinoswarm_model.delta_codecs import CODECS
from kinoswarm_model.home_presets import home_policy
from kinoswarm_protocol.accounts import revoke
from kinoswarm_protocol.errors import Code
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import Lease, MergeOrder, NoWork, RevokeMachine, TrainOrder

LIAR = "lazy"


def test_a_newcomers_work_is_done_again_by_another_account_under_an_order_that_looks_alike() -> (
    None
):
    swarm = AuditedSwarm()
    alice, bob = swarm.joined(1, 2)
    first = swarm.work(alice)
    again = swarm.leased(bob)
    assert again.order == swarm.state.leases[first].lease.order
    assert swarm.state.leases[LeaseId(again.lease_id)].purpose == "audit"
    assert "audit" not in repr(again)


def test_nobody_audits_itself() -> None:
    swarm = AuditedSwarm()
    alice, _ = swarm.joined(1, 2)
    first = swarm.work(alice)
    assert isinstance(swarm.pull(alice), NoWork)
    assert list(swarm.state.audits_wanted) == [first]


def test_a_newcomers_work_enters_no_version_before_its_audit() -> None:
    swarm = AuditedSwarm()
    alice, bob = swarm.joined(1, 2)
    first = swarm.work(alice)
    assert "MergeOrder" not in swarm.operate()
    second = swarm.work(bob)
    assert swarm.operate().count("CompareOrder") == 1
    assert swarm.case(first).result == "confirmed"
    assert swarm.state.work[first].phase == "merged"
    assert swarm.state.work[second].phase == "credited", "the same work must not be merged twice"


def test_a_swarm_of_one_goes_on_without_audits() -> None:
    swarm = AuditedSwarm()
    (alice,) = swarm.joined(1)
    first = swarm.work(alice)
    swarm.operate()
    assert swarm.state.work[first].phase == "merged"
    assert not swarm.state.audits


def test_credit_is_verified_by_an_audit_and_pending_before() -> None:
    swarm = AuditedSwarm()
    alice, bob = swarm.joined(1, 2)
    swarm.work(alice)
    swarm.operate()
    ledger = ledger_of(swarm.history, 1.0)
    assert ledger.pending(alice.peer_id) == ledger.by_peer[alice.peer_id] > 0
    swarm.work(bob)
    swarm.operate()
    ledger = ledger_of(swarm.history, 1.0)
    assert ledger.pending(alice.peer_id) == ledger.pending(bob.peer_id) == 0
    assert ledger.verified[bob.peer_id] == ledger.by_peer[bob.peer_id]


def test_runs_that_differ_accuse_nobody_until_three_agree() -> None:
    swarm = AuditedSwarm()
    alice, bob, carol, dave = swarm.joined(1, 2, 3, 4)
    first = swarm.work(alice)
    lie = swarm.work(bob, LIAR)
    swarm.operate()
    assert swarm.case(first).result == "open"
    assert not swarm.state.bans
    swarm.work(carol)
    swarm.operate()
    assert swarm.case(first).result == "open", "two fresh identities convict nobody"
    swarm.work(dave)
    swarm.operate()
    assert swarm.case(first).result == "confirmed"
    assert swarm.state.work[lie].verdict.code == "audit_mismatch"
    assert swarm.state.ban_of(bob.peer_id, swarm.now_ms) is not None
    assert swarm.state.ban_of(alice.peer_id, swarm.now_ms) is None
    assert swarm.state.work[first].phase == "merged"


def test_a_lazy_contribution_is_refuted_and_its_credit_taken_back() -> None:
    swarm = AuditedSwarm()
    alice, bob, carol, dave = swarm.joined(1, 2, 3, 4)
    lie = swarm.work(alice, LIAR)
    for key in (bob, carol, dave):
        swarm.work(key)
        swarm.operate()
    assert swarm.case(lie).result == "refuted"
    assert swarm.state.work[lie].phase == "rejected"
    ledger = ledger_of(swarm.history, 1.0)
    assert ledger.by_peer[alice.peer_id] == 0.0
    assert ledger.verified[bob.peer_id] > 0
    assert trust_of(swarm.state, alice.peer_id).refuted == 1
    say = swarm.pull(alice)
    assert isinstance(say, NoWork)
    assert "other machines did the same work" in say.sentence


def test_two_colluding_newcomers_cannot_frame_an_honest_one() -> None:
    swarm = AuditedSwarm()
    alice, *others = swarm.joined(1, 2, 3, 4, 5)
    first = swarm.work(alice)
    for key, camp in zip(others, ("plot", "plot", "honest", "honest"), strict=True):
        swarm.work(key, camp)
        swarm.operate()
    assert swarm.case(first).result == "confirmed"
    assert swarm.state.ban_of(alice.peer_id, swarm.now_ms) is None
    assert swarm.state.ban_of(others[0].peer_id, swarm.now_ms) is not None


def test_five_runs_without_a_majority_blame_nobody() -> None:
    swarm = AuditedSwarm()
    keys = swarm.joined(1, 2, 3, 4, 5)
    first = swarm.work(keys[0], "camp 0")
    for number, key in enumerate(keys[1:], start=1):
        swarm.work(key, f"camp {number}")
        swarm.operate()
    assert swarm.case(first).result == "unclear"
    assert not swarm.state.bans
    assert swarm.state.work[first].phase == "merged", "held-out loss alone decides then"


def proven(swarm: AuditedSwarm, *numbers: int) -> None:
    """Let two accounts confirm each other until both are proven."""
    one, other = (account(number) for number in numbers)
    swarm.everybody(*numbers, rounds=20)
    assert is_proven(swarm.state, swarm.rules, one.peer_id)
    assert is_proven(swarm.state, swarm.rules, other.peer_id)


def test_trust_makes_audits_rare_and_one_refutation_starts_anew() -> None:
    swarm = AuditedSwarm(audited_rules(audit_one_in=10))
    swarm.joined(1, 2)
    proven(swarm, 1, 2)
    before, worked = len(swarm.state.audits), len(swarm.state.work)
    swarm.everybody(1, 2, rounds=40)
    audited = len(swarm.state.audits) - before
    assert len(swarm.state.work) - worked > 40
    assert 0 < audited < 20


def test_audits_cost_a_twentieth_of_the_training_at_most() -> None:
    policy, segment = home_policy(), 500 * 16
    forward = (
        2 * policy.heldout_pairs
    )  # base and candidate, at a third of a training sample's FLOPs each
    evaluated = forward / (3 * segment)
    merged = forward / (3 * policy.quorum_samples)
    assert 1 / policy.audit_one_in + evaluated + merged <= 0.05


def test_refuted_work_of_a_proven_account_takes_its_version_back_and_the_rest_is_merged_anew() -> (
    None
):
    swarm = AuditedSwarm(audited_rules(audit_one_in=1, max_staleness=2, quorum_samples=300))
    alice, bob, carol = swarm.joined(1, 2, 3)
    proven(swarm, 1, 2)
    assert not swarm.state.uncovered
    honest = swarm.work(alice)
    swarm.work_on(carol, honest)
    lie = swarm.work(bob, LIAR)
    swarm.operate()
    assert swarm.state.work[lie].phase == "merged"
    version = swarm.state.newest((0, 0)).version
    for auditor in (carol, alice):
        swarm.work_on(auditor, lie)
    assert swarm.case(lie).result == "refuted"
    rolled = [event for event in swarm.history if isinstance(event, ev.VersionRolledBack)]
    assert rolled
    assert version in rolled[0].withdrawn
    assert honest in rolled[0].reopened
    assert lie not in rolled[0].reopened
    swarm.now_ms += 11_000
    swarm.operate()
    assert swarm.state.work[honest].phase == "merged"
    assert fold(SwarmState(), swarm.history) == swarm.state


def test_bans_grow_and_end() -> None:
    swarm = AuditedSwarm()
    alice, bob, carol, dave = swarm.joined(1, 2, 3, 4)
    lasted = []
    for _ in range(2):
        swarm.work(alice, LIAR)
        for key in (bob, carol, dave):
            swarm.work(key)
            swarm.operate()
        ban = swarm.state.ban_of(alice.peer_id, swarm.now_ms)
        assert ban is not None
        lasted.append(ban.until_ms - swarm.now_ms)
        swarm.now_ms = ban.until_ms
        swarm.expire()
        assert swarm.state.ban_of(alice.peer_id, swarm.now_ms) is None
    assert lasted == [3_600_000, 7_200_000]


def test_what_nobody_audited_of_a_refuted_account_is_set_aside() -> None:
    swarm = AuditedSwarm(audited_rules(num_clusters=2))
    alice, bob, carol, dave = swarm.joined(1, 2, 3, 4)
    lie, other = swarm.work(alice, LIAR), swarm.work(alice, LIAR)
    for key in (bob, carol, dave):
        swarm.work_on(key, lie)
    assert swarm.state.work[other].phase == "quarantined"
    assert swarm.state.work[other].verdict.code == "set_aside"
    assert ledger_of(swarm.history, 1.0).by_peer[alice.peer_id] == 0.0


def test_an_audit_that_nobody_can_finish_is_given_up_and_the_work_goes_on() -> None:
    swarm = AuditedSwarm(audited_rules(audit_wait_s=60.0))
    alice, bob = swarm.joined(1, 2)
    first = swarm.work(alice)
    lost = swarm.leased(bob)
    swarm.operate()
    swarm.now_ms = lost.deadline_ms + 1
    swarm.expire()
    assert swarm.case(first).result == "given_up"
    swarm.operate()
    assert swarm.state.work[first].phase == "merged"


def test_a_copy_that_expires_is_given_to_somebody_else() -> None:
    swarm = AuditedSwarm()
    alice, bob, carol = swarm.joined(1, 2, 3)
    first = swarm.work(alice)
    lost = swarm.leased(bob)
    swarm.operate()
    swarm.now_ms = lost.deadline_ms + 1
    swarm.expire()
    assert swarm.state.audit_of[LeaseId(swarm.leased(carol).lease_id)] == first


def test_a_contribution_that_fails_its_own_evaluation_needs_no_audit() -> None:
    swarm = AuditedSwarm()
    alice, _ = swarm.joined(1, 2)
    first = swarm.work(alice)
    swarm.operate(worse=True)
    assert swarm.case(first).result == "moot"
    assert not swarm.state.audits_wanted


def test_newcomers_audit_last_once_others_are_proven() -> None:
    swarm = AuditedSwarm(audited_rules(audit_first=1))
    swarm.joined(1, 2, 3, 4, 5)
    proven(swarm, 1, 2)
    proven(swarm, 3, 1)
    first = swarm.work(account(4))
    stranger = swarm.pull(account(5))
    assert isinstance(stranger, NoWork) or (
        swarm.state.audit_of.get(LeaseId(stranger.lease_id)) != first
    )
    auditor = swarm.leased(account(1))
    assert swarm.state.audit_of.get(LeaseId(auditor.lease_id)) == first


def test_machines_of_one_account_do_not_audit_each_other() -> None:
    swarm = AuditedSwarm()
    owner, one, other, stranger = (account(number) for number in (1, 2, 3, 4))
    swarm.hello(one, paper(swarm, one, owner))
    swarm.hello(other, paper(swarm, other, owner))
    swarm.hello(stranger)
    first = swarm.work(one)
    assert isinstance(swarm.pull(other), NoWork)
    assert swarm.state.audit_of[LeaseId(swarm.leased(stranger).lease_id)] == first


def test_unproven_accounts_weigh_no_more_than_their_share_beside_proven_ones() -> None:
    swarm = AuditedSwarm(audited_rules(unproven_share=0.25, quorum_samples=400))
    swarm.joined(1, 2, 3)
    proven(swarm, 1, 2)
    newcomer = swarm.work(account(3))
    swarm.work_on(account(1), newcomer)
    swarm.work(account(1))
    swarm.work(account(2))
    orders = []
    while isinstance(lease := swarm.pull(COORDINATOR), Lease):
        if isinstance(lease.order, MergeOrder):
            orders.append(lease.order)
        swarm.finish(COORDINATOR, lease, swarm.trusted_outcome(lease, False))
    merged = [o for o in orders if newcomer in {d.contribution for d in o.deltas}]
    assert merged
    weights = {delta.contribution: delta.weight for delta in merged[0].deltas}
    assert weights[newcomer] <= 0.25 * sum(weights.values()) + 1e-9


def test_one_account_may_hold_so_many_leases() -> None:
    swarm = SmallSwarm(rules(2, account_leases=1, quorum_samples=10_000))
    owner, one, other = (account(number) for number in (1, 2, 3))
    swarm.hello(one, paper(swarm, one, owner))
    swarm.hello(other, paper(swarm, other, owner))
    swarm.leased(one)
    say = swarm.pull(other)
    assert isinstance(say, NoWork)
    assert "one account may hold 1" in say.sentence


def test_ordinary_segments_vary_so_that_an_audits_length_gives_nothing_away() -> None:
    audited = audited_rules(segment_steps_min=1)
    lengths = {leased_steps(audited, 0.2, seed, newcomer=False) for seed in range(64)}
    assert lengths == {100, 50, 25, 12}
    assert {leased_steps(rules(), 0.2, seed, newcomer=True) for seed in range(64)} == {100}


def test_newcomers_begin_with_short_segments_so_that_doing_all_of_it_twice_costs_little() -> None:
    audited = audited_rules(segment_steps_min=1)
    assert {leased_steps(audited, 0.2, seed, newcomer=True) for seed in range(64)} == {6}


def test_comparisons_of_one_kind_narrow_the_band() -> None:
    swarm = AuditedSwarm(audited_rules(audit_distance=0.5))
    swarm.joined(1, 2, 3)
    proven(swarm, 1, 2)
    key = next(iter(swarm.state.audit_distances))
    assert set(swarm.state.audit_distances[key]) == {0.05}
    first = next(iter(swarm.state.audits))
    runs = swarm.case(first).runs
    swarm.state.audit_distances[key].clear()
    assert allowed_distance(swarm.state, swarm.rules, *runs[:2]) == 0.5
    swarm.state.audit_distances[key].extend([0.05] * LEAST)
    assert allowed_distance(swarm.state, swarm.rules, *runs[:2]) == pytest.approx(0.2)
    swarm.state.audit_distances[key].extend([0.0] * KEPT)
    assert allowed_distance(swarm.state, swarm.rules, *runs[:2]) == HONEST_DISTANCE["int8.1"]


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_no_charter_accuses_honest_machines_whose_arithmetic_differs(codec: str) -> None:
    """What was measured between float32 and bfloat16 runs, with any optimizer: docs/lab-notes.md."""
    measured = {"int8.1": 0.0303, "int4.1": 0.0764, "sparse.1": 0.3465}
    swarm = AuditedSwarm(audited_rules(audit_distance=0.0, delta_codec=codec))
    swarm.joined(1, 2)
    first = swarm.work(account(1))
    swarm.work_on(account(2), first)
    allowed = allowed_distance(swarm.state, swarm.rules, *swarm.case(first).runs[:2])
    assert allowed > 1.25 * measured[codec]


def test_an_audit_order_is_a_train_order() -> None:
    swarm = AuditedSwarm()
    alice, bob = swarm.joined(1, 2)
    swarm.work(alice)
    assert isinstance(swarm.leased(bob).order, TrainOrder)


def test_a_helper_gets_others_work_to_do_again_and_none_of_its_own() -> None:
    swarm = AuditedSwarm()
    alice, helper = swarm.joined(1, 2)
    nothing = swarm.pull(helper, helper=True)
    assert isinstance(nothing, NoWork)
    assert "no audit waits" in nothing.sentence
    first = swarm.work(alice)
    again = swarm.pull(helper, helper=True)
    assert isinstance(again, Lease)
    assert swarm.state.audit_of[LeaseId(again.lease_id)] == first


def test_a_helper_gets_only_what_it_can_finish_in_the_time_that_is_left() -> None:
    swarm = AuditedSwarm(audited_rules(audit_wait_s=4_000.0))
    alice, helper = swarm.joined(1, 2)
    swarm.work(alice)
    steps = next(iter(swarm.state.leases.values())).order.steps
    too_slow, slow = 2_100 / steps, 1_900 / steps
    assert isinstance(swarm.pull(helper, helper=True, seconds_per_step=too_slow), NoWork)
    assert isinstance(swarm.pull(helper, helper=True, seconds_per_step=0.0), NoWork), "not measured"
    swarm.now_ms += 500_000
    assert isinstance(swarm.pull(helper, helper=True, seconds_per_step=slow), NoWork), (
        "less is left"
    )
    swarm.now_ms -= 500_000
    lease = swarm.pull(helper, helper=True, seconds_per_step=slow)
    assert isinstance(lease, Lease)
    assert lease.deadline_ms - lease.issued_at_ms >= 1_900_000


def test_where_nobodys_work_is_done_again_a_helper_is_told_so() -> None:
    swarm = AuditedSwarm(audited_rules(audit_one_in=0))
    (helper,) = swarm.joined(1)
    said = swarm.pull(helper, helper=True)
    assert isinstance(said, NoWork)
    assert "keeps and serves" in said.sentence


def test_a_merge_that_an_audit_overtook_comes_to_nothing_and_is_made_anew() -> None:
    """Its other contributions are honest work; the refuted one must not come back as merged."""
    swarm = SmallSwarm(rules(1, target_version=50, work_ahead=9.0))
    good, bad = (work_of(swarm, account(number)) for number in (1, 2))
    merge = next(lease for lease in operators_leases(swarm) if isinstance(lease.order, MergeOrder))
    assert {delta.contribution for delta in merge.order.deltas} == {good, bad}
    node = swarm.state.work[bad].node
    refuted = rejected(bad, node, Code.AUDIT_MISMATCH, "others got something else", swarm.now_ms)
    swarm.record([ev.VerdictGiven(at_ms=swarm.now_ms, verdict=refuted)])
    swarm.finish(COORDINATOR, merge, trusted_outcome(merge))
    assert swarm.state.newest((0, 0)).version == 0
    assert swarm.state.work[bad].phase == "rejected"
    swarm.operate()
    assert swarm.state.newest((0, 0)).contributions == [good]
    assert swarm.state.work[bad].phase == "rejected"


def work_of(swarm: SmallSwarm, key: KeyPair) -> LeaseId:
    swarm.hello(key)
    return LeaseId(swarm.train(key).lease_id)


def operators_leases(swarm: SmallSwarm) -> Iterator[Lease]:
    """One after another, each done before the next is pulled."""
    while True:
        lease = swarm.leased(COORDINATOR)
        yield lease
        swarm.finish(COORDINATOR, lease, trusted_outcome(lease))


def test_an_account_answers_for_a_machine_that_left_it_after_handing_in() -> None:
    """Else a proven account could lend its trust to machine after machine, and lose none when they are found out."""
    swarm = AuditedSwarm(audited_rules(num_clusters=2))
    machine, bob, carol, dave = swarm.joined(1, 2, 3, 4)
    owner = account(9)
    swarm.hello(machine, paper(swarm, machine, owner))
    lie, other = swarm.work(machine, LIAR), swarm.work(machine, LIAR)
    swarm.now_ms += 1_000
    leaving = revoke(machine, owner.peer_id, machine.peer_id, swarm.now_ms)
    swarm.ask(machine, RevokeMachine(revocation=leaving))
    assert swarm.state.account_of(machine.peer_id) == machine.peer_id
    for key in (bob, carol, dave):
        swarm.work_on(key, lie)
    assert swarm.case(lie).result == "refuted"
    assert trust_of(swarm.state, owner.peer_id).refuted == 1
    assert swarm.state.ban_of(owner.peer_id, swarm.now_ms) is not None
    assert swarm.state.work[other].phase == "quarantined"
    assert fold(SwarmState(), swarm.history) == swarm.state
