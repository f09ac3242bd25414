"""Runs that differ, and the operator's own worker that ends the dispute: no number of liars frames anybody."""

from coordinator.audited_swarm import AuditedSwarm, audited_rules
from coordinator.test_audits import proven
from protocol.samples import COORDINATOR

from kinoswarm_coordinator.fold import fold
from kinoswarm_coordinator.state import Rules, SwarmState, Trust
from kinoswarm_coordinator.trust import MOST_REFUSED
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
    assert swarm.state.trust.get(COORDINATOR.peer_id) is None


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


def test_runs_of_the_operator_that_its_own_checks_refuse_ban_nobody() -> None:
    """A banned operator's worker would get no work at all, and the swarm would stand still."""
    swarm = refereed()
    disputed(swarm, *swarm.joined(1, 2))
    swarm.state.trust[COORDINATOR.peer_id] = Trust(refused=MOST_REFUSED - 1)
    swarm.state.by_confirmed.add((0, COORDINATOR.peer_id))
    for kind in ("TrainOrder", "EvaluateOrder"):
        lease = operators_next(swarm, kind)
        swarm.finish(COORDINATOR, lease, swarm.trusted_outcome(lease, worse=True))
    assert swarm.state.trust[COORDINATOR.peer_id].refused == MOST_REFUSED
    assert not is_banned(swarm, COORDINATOR)


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
