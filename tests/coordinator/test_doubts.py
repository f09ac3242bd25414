"""Doubts: work that passes every check and did not learn what it was given is done again before it counts."""

from collections import deque
from random import Random

import pytest
from coordinator.audited_swarm import AuditedSwarm, account, audited_rules
from coordinator.small_swarm import judgement
from msgspec import structs
from protocol.samples import BLOB, COORDINATOR

from kinoswarm_coordinator import doubts
from kinoswarm_coordinator.fold_merging import lineage_of
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.messages import (
    AssignedSamples,
    DeltaJudgement,
    EvaluateOrder,
    EvaluateOutcome,
    LossShift,
)

USUAL = [3.0, 2.0, 4.0, 3.5, 2.5, 3.2, 2.8, 3.1, 1.5]


def seen(own: float, cluster: float = 3.0) -> DeltaJudgement:
    """A judgement with these scores."""
    plain = judgement(BLOB, worse=False)
    return structs.replace(
        plain,
        on_assigned=LossShift(difference=-0.1 * own, standard_error=0.1),
        on_foreign=LossShift(
            difference=plain.difference + plain.standard_error * 2**0.5 * cluster,
            standard_error=plain.standard_error,
        ),
    )


def test_scores_are_in_standard_errors_and_above_zero_as_they_should_be() -> None:
    assert doubts.own_score(seen(2.0)) == pytest.approx(2.0)
    assert doubts.cluster_score(seen(2.0, cluster=-4.0)) == pytest.approx(-4.0)
    nobody_looked = judgement(BLOB, worse=False)
    assert doubts.own_score(nobody_looked) is None
    assert doubts.cluster_score(nobody_looked) is None


def test_a_delta_that_did_not_learn_its_samples_is_doubted() -> None:
    assert "the samples of its lease" in doubts.doubt(seen(-0.5), USUAL, USUAL)
    assert "its own cluster" in doubts.doubt(seen(3.0, cluster=-6.0), USUAL, USUAL)
    assert doubts.doubt(seen(3.0), USUAL, USUAL) == ""


def test_before_enough_is_known_nothing_is_doubted() -> None:
    assert doubts.doubt(seen(-9.0, -9.0), USUAL[: doubts.LEAST - 1], []) == ""


def test_where_honest_scores_are_chance_nobody_is_doubted_for_them() -> None:
    chance = Random(1)
    for _ in range(300):
        recent = [chance.gauss(0.2, 1.0) for _ in range(doubts.KEPT)]
        assert doubts.doubt(seen(0.0), recent, []) == ""


def test_a_third_of_hostile_ones_does_not_hide_the_others() -> None:
    chance = Random(2)
    recent = [chance.gauss(6.0, 1.0) for _ in range(44)] + [chance.gauss(0.0, 1.0)] * 20
    assert doubts.doubt(seen(-1.0), recent, [])


def unaudited(swarm: AuditedSwarm) -> LeaseId:
    """A contribution of a proven account that chance chose no audit for."""
    swarm.joined(1, 2, 3)
    swarm.everybody(1, 2, 3, rounds=8)
    for _ in range(20):
        lease = swarm.leased(account(1))
        swarm.finish(account(1), lease, swarm.run(account(1), lease))
        lease_id = LeaseId(lease.lease_id)
        if lease_id not in swarm.state.audits and lease_id not in swarm.state.audit_of:
            return lease_id
        swarm.operate()
    raise AssertionError("every contribution of a proven account was audited")


def evaluated(swarm: AuditedSwarm, own: float) -> EvaluateOrder:
    """The operator's worker evaluates once, and finds this score."""
    while not isinstance((lease := swarm.leased(COORDINATOR)).order, EvaluateOrder):
        swarm.finish(COORDINATOR, lease, swarm.trusted_outcome(lease, worse=False))
    order = lease.order
    judgements = [structs.replace(seen(own), delta=delta) for delta in order.deltas]
    swarm.finish(COORDINATOR, lease, EvaluateOutcome(judgements=judgements, flops=1.0))
    return order


def test_a_proven_account_is_asked_what_its_delta_learnt() -> None:
    swarm = AuditedSwarm(rules=audited_rules(2))
    lease_id = unaudited(swarm)
    order = evaluated(swarm, own=3.0)
    trained = swarm.state.leases[lease_id].order
    assert AssignedSamples(
        seed=trained.seed, steps=trained.steps, batch_size=trained.batch_size
    ) in (order.assigned)
    assert order.foreign is not None
    assert order.foreign != order.cluster
    assert 0 < order.probes < order.pairs
    assert swarm.state.own_scores[lineage_of(swarm.state, lease_id)][-1] == pytest.approx(3.0)


def test_what_is_doubted_waits_for_an_audit_and_is_refuted_by_it() -> None:
    swarm = AuditedSwarm()
    lease_id = unaudited(swarm)
    swarm.camps[swarm.state.delta_of(lease_id)] = "liar"
    swarm.state.own_scores[0, 0] = deque(USUAL)
    evaluated(swarm, own=-2.0)
    case = swarm.case(lease_id)
    assert (case.result, case.holds) == ("open", True)
    assert swarm.state.work[lease_id].phase == "accepted"
    swarm.work_on(account(2), lease_id)
    swarm.work_on(account(3), lease_id)
    assert swarm.case(lease_id).result == "refuted"
    assert swarm.state.work[lease_id].phase == "rejected"
    assert account(1).peer_id in swarm.state.bans


def test_an_honest_one_that_was_doubted_is_confirmed_and_merged() -> None:
    swarm = AuditedSwarm()
    lease_id = unaudited(swarm)
    swarm.state.own_scores[0, 0] = deque(USUAL)
    evaluated(swarm, own=-2.0)
    swarm.work_on(account(2), lease_id)
    swarm.operate()
    assert swarm.case(lease_id).result == "confirmed"
    assert account(1).peer_id not in swarm.state.bans


def test_a_swarm_without_audits_asks_nothing() -> None:
    swarm = AuditedSwarm(rules=audited_rules(2, audit_one_in=0))
    swarm.joined(1, 2)
    swarm.work(account(1))
    order = evaluated(swarm, own=3.0)
    assert (order.assigned, order.foreign, order.probes) == ([], None, 0)
