"""Runs that differ, and the operator's own worker that ends the dispute: no number of liars frames anybody."""

from coordinator.audited_swarm import AuditedSwarm, audited_rules
from coordinator.test_audits import proven
from protocol.samples import COORDINATOR

from kinoswarm_coordinator.credit import ledger_of
from kinoswarm_coordinator.fold import fold
from kinoswarm_coordinator.referee import believed, next_dispute
from kinoswarm_coordinator.rolling_back import Rollback, rolled_back
from kinoswarm_coordinator.state import Rules, SwarmState
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import Lease, NoWork

PLOT = "plot"


def refereed(**policy: object) -> AuditedSwarm:
    return AuditedSwarm(refereed_rules(**policy))


def refereed_rules(**policy: object) -> Rules:
    return audited_rules(referee=True, **policy)


def disputed(swarm: AuditedSwarm, alice: KeyPair, bob: KeyPair) -> tuple[LeaseId, LeaseId]:
    """Alice's honest work, and Bob's run of it that differs; both are judged and compared."""
    first = swarm.work(alice)
    lie = swarm.work(bob, PLOT)
    for kind in ("EvaluateOrder", "CompareOrder"):
        lease = swarm.leased(COORDINATOR)
        assert type(lease.order).__name__ == kind
        swarm.finish(COORDINATOR, lease, swarm.trusted_outcome(lease, False))
    assert swarm.case(first).result == "open"
    return first, lie


def is_banned(swarm: AuditedSwarm, key: KeyPair) -> bool:
    return swarm.state.ban_of(key.peer_id, swarm.now_ms) is not None


def test_the_operators_worker_does_disputed_work_again_and_its_run_decides() -> None:
    swarm = refereed()
    alice, bob = swarm.joined(1, 2)
    first, lie = disputed(swarm, alice, bob)
    swarm.operate()
    assert swarm.case(first).result == "confirmed"
    assert is_banned(swarm, bob)
    assert not is_banned(swarm, alice)
    assert swarm.state.work[lie].verdict.code == "audit_mismatch"
    assert fold(SwarmState(), swarm.history) == swarm.state


def test_a_disputed_liar_is_refuted_by_the_operators_run() -> None:
    swarm = refereed()
    alice, bob = swarm.joined(1, 2)
    lie = swarm.work(alice, PLOT)
    swarm.work(bob)
    swarm.operate()
    assert swarm.case(lie).result == "refuted"
    assert is_banned(swarm, alice)
    assert not is_banned(swarm, bob)


def test_not_even_proven_plotters_frame_anybody() -> None:
    swarm = refereed(audit_one_in=1)
    alice, *plotters = swarm.joined(1, 2, 3, 4)
    proven(swarm, 2, 3)
    first = swarm.work(alice)
    swarm.operate()
    for key in plotters:
        lease = swarm.pull(key)
        if isinstance(lease, Lease):
            swarm.finish(key, lease, swarm.run(key, lease, PLOT))
    swarm.operate()
    assert swarm.case(first).result == "confirmed"
    assert not is_banned(swarm, alice)


def test_others_wait_for_the_referee_and_vote_when_it_finds_no_time() -> None:
    swarm = refereed(audit_wait_s=1_000.0)
    alice, bob, carol, dave = swarm.joined(1, 2, 3, 4)
    first, _ = disputed(swarm, alice, bob)
    assert isinstance(swarm.pull(carol), NoWork), "the operator's worker comes first"
    swarm.now_ms += 501_000
    late = swarm.leased(dave)
    assert swarm.state.audit_of[LeaseId(late.lease_id)] == first
    assert first not in swarm.state.audits_disputed


def test_a_referee_that_agrees_with_nobody_accuses_nobody() -> None:
    """Its machine may be the one that computes wrongly: then volunteers decide, and it is never punished."""
    swarm = refereed()
    alice, bob, carol, dave = swarm.joined(1, 2, 3, 4)
    swarm.referees_camp = "broken machine"
    first, _ = disputed(swarm, alice, bob)
    swarm.operate()
    assert swarm.case(first).result == "open"
    assert not swarm.state.bans
    for key in (carol, dave):
        swarm.work_on(key, first)
    assert swarm.case(first).result == "confirmed"
    assert is_banned(swarm, bob)
    assert not is_banned(swarm, COORDINATOR)
    assert COORDINATOR.peer_id not in swarm.state.trust


def test_work_as_long_as_proven_volunteers_do_is_left_to_volunteers() -> None:
    swarm = refereed(audit_one_in=1, segment_steps_min=4, segment_steps_max=256)
    alice, bob = swarm.joined(1, 2)
    proven(swarm, 1, 2)
    long = next(
        lease_id
        for _ in range(20)
        if (lease_id := worked(swarm, alice))
        and swarm.state.leases[lease_id].lease.order.steps > 16
    )
    swarm.operate()
    assert long in swarm.state.audits_open
    swarm.work(bob, PLOT)
    swarm.operate()
    assert long in swarm.state.audits_disputed
    assert isinstance(swarm.pull(COORDINATOR), NoWork)


def worked(swarm: AuditedSwarm, key: KeyPair) -> LeaseId | None:
    swarm.now_ms += 1_000
    lease_id = swarm.work(key)
    return lease_id if lease_id in swarm.state.audits else None


def test_the_referees_run_is_no_contribution() -> None:
    """No verdict on any page, no credit, no trust, no sample: it only says who is right."""
    swarm = refereed()
    disputed(swarm, *swarm.joined(1, 2))
    swarm.operate()
    (own,) = [work for work in swarm.state.work.values() if work.is_referees]
    assert own.verdict is None
    assert COORDINATOR.peer_id not in swarm.state.work.by_node
    assert COORDINATOR.peer_id not in swarm.state.trust
    assert COORDINATOR.peer_id not in swarm.state.uncovered
    ledger = ledger_of(swarm.history, 1.0)
    assert COORDINATOR.peer_id not in ledger.by_peer
    assert swarm.state.work.total.accepted == 1


def test_a_run_whose_base_was_withdrawn_meanwhile_is_taken_and_of_no_use() -> None:
    """Refused, its lease would stay open and come again after every start of the coordinator, for ever."""
    swarm = refereed(audit_one_in=1)
    proven_pair = swarm.joined(3, 4)
    proven(swarm, 3, 4)
    alice, bob = swarm.joined(1, 2)
    newest = swarm.state.newest((0, 0)).version
    assert newest > 0
    first = swarm.work(alice)
    again = next(
        lease for key in (bob, *proven_pair) if is_copy(swarm, lease := swarm.leased(key), first)
    )
    who = next(key for key in (bob, *proven_pair) if key.peer_id == again.node)
    swarm.finish(who, again, swarm.run(who, again, PLOT))
    lease = operators_next(swarm, "TrainOrder")
    wanted = Rollback(
        key=(0, 0), to_version=newest - 1, sentence="x", refused=frozenset(), keeps_resting=True
    )
    swarm.record(rolled_back(swarm.state, swarm.rules, wanted, swarm.now_ms))
    assert swarm.case(first).result == "moot"
    assert first not in swarm.state.audits_open
    swarm.finish(COORDINATOR, lease, swarm.trusted_outcome(lease, False))
    assert swarm.pull(COORDINATOR) != lease
    assert not is_banned(swarm, alice)
    assert fold(SwarmState(), swarm.history) == swarm.state


def is_copy(swarm: AuditedSwarm, lease: Lease, primary: LeaseId) -> bool:
    return swarm.state.audit_of.get(LeaseId(lease.lease_id)) == primary


def test_a_liar_that_hands_in_late_does_not_escape_the_referee() -> None:
    swarm = refereed(audit_wait_s=1_000.0)
    alice, liar, carol, dave = swarm.joined(1, 2, 3, 4)
    first = swarm.work(alice)
    lease = swarm.leased(liar)
    swarm.now_ms += 900_000
    swarm.finish(liar, lease, swarm.run(liar, lease, PLOT))
    for kind in ("EvaluateOrder", "CompareOrder"):
        done = operators_next(swarm, kind)
        swarm.finish(COORDINATOR, done, swarm.trusted_outcome(done, False))
    swarm.now_ms += 200_000
    swarm.expire()
    for key in (carol, dave):
        assert not (isinstance(found := swarm.pull(key), Lease) and is_copy(swarm, found, first))
    swarm.operate()
    assert swarm.case(first).result == "confirmed"
    assert is_banned(swarm, liar)
    assert not is_banned(swarm, alice)


def test_a_referee_that_is_known_to_be_slow_leaves_disputes_to_votes() -> None:
    swarm = refereed()
    first, _ = disputed(swarm, *swarm.joined(1, 2))
    assert next_dispute(swarm.state, swarm.rules, swarm.now_ms) is not None
    steps = swarm.state.leases[first].lease.order.steps
    swarm.state.referee_seconds_per_step = 1_801 / steps
    assert next_dispute(swarm.state, swarm.rules, swarm.now_ms) is None


def test_of_two_that_differ_both_near_the_referee_the_nearer_one_is_right() -> None:
    """Volunteers' machines are held to a band that was learnt; the operator's is of another kind and has none."""
    friends = [{0, 2}, {1, 2}, {0, 1, 2}]
    assert believed(friends, 2, {(0, 1): 0.45, (0, 2): 0.46, (1, 2): 0.05}) == [1]
    assert believed(friends, 2, {(0, 1): 0.45, (0, 2): 0.04, (1, 2): 0.46}) == [0]
    alike = [{0, 1, 2}, {0, 1, 2}, {0, 1, 2}]
    assert believed(alike, 2, {(0, 1): 0.02, (0, 2): 0.06, (1, 2): 0.05}) == [1, 0]


def operators_next(swarm: AuditedSwarm, kind: str) -> Lease:
    """Its next lease of this kind; what comes before is done."""
    while True:
        lease = swarm.leased(COORDINATOR)
        if type(lease.order).__name__ == kind:
            return lease
        swarm.finish(COORDINATOR, lease, swarm.trusted_outcome(lease, False))


def test_who_was_found_out_has_no_say_in_other_disputes() -> None:
    """Else each of a liar's lies would cost the operator's worker a training, and votes would count it still."""
    swarm = refereed(work_ahead=9.0, quorum_samples=10_000)
    alice, carol, liar = swarm.joined(1, 2, 3)
    leases = [(key, swarm.leased(key)) for key in (alice, carol)]
    for key, lease in leases:
        swarm.finish(key, lease, swarm.run(key, lease))
    first, second = (LeaseId(lease.lease_id) for _, lease in leases)
    lies = [swarm.work(liar, PLOT), swarm.work(liar, PLOT)]
    assert [swarm.state.audit_of[lie] for lie in lies] == [first, second]
    lease = operators_next(swarm, "TrainOrder")
    (other,) = swarm.state.audits_disputed
    assert {other, swarm.state.audit_of[LeaseId(lease.lease_id)]} == {first, second}
    swarm.finish(COORDINATOR, lease, swarm.trusted_outcome(lease, False))
    did = swarm.operate()
    assert is_banned(swarm, liar)
    assert "TrainOrder" not in did, "the other dispute is over without a run of its own"
    assert not swarm.state.audits_disputed
    assert swarm.case(other).runs == [other]
    assert other in swarm.state.audits_wanted
    assert fold(SwarmState(), swarm.history) == swarm.state
