"""Copies, sizes out of the band, and the ledger: what a cheater meets first, and what an honest node is owed."""

import math

import pytest
from coordinator.small_swarm import SmallSwarm, blob_named, judgement, rules, trained
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from protocol.samples import BLOB, COORDINATOR, FOUNDER, NODE

from kinoswarm_coordinator.credit import flops_per_step, ledger_of
from kinoswarm_coordinator.norm_band import LEAST, outside_band
from kinoswarm_protocol.errors import Code
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.messages import EvaluateOrder, EvaluateOutcome, Lease, Refusal


def two_nodes() -> SmallSwarm:
    swarm = SmallSwarm(rules(2, target_version=100, quorum_samples=1))
    swarm.hello(NODE)
    swarm.hello(FOUNDER)
    return swarm


def verdict_on(swarm: SmallSwarm, lease: Lease):
    return swarm.state.work[LeaseId(lease.lease_id)].verdict


def test_somebody_elses_delta_is_refused_at_once() -> None:
    swarm = two_nodes()
    first, second = swarm.leased(NODE), swarm.leased(FOUNDER)
    mine = trained(first)
    swarm.submit(NODE, first, mine)
    swarm.submit(FOUNDER, second, structs.replace(trained(second), delta=mine.delta))
    assert verdict_on(swarm, second).code == "copied"
    assert verdict_on(swarm, first) is None
    assert LeaseId(second.lease_id) not in swarm.state.undecided


def test_ones_own_old_delta_is_no_new_work_either() -> None:
    swarm = two_nodes()
    old = swarm.train(NODE)
    swarm.operate()
    again = swarm.leased(NODE)
    swarm.submit(NODE, again, structs.replace(trained(again), delta=trained(old).delta))
    assert verdict_on(swarm, again).code == "copied"


def test_a_published_version_is_no_delta() -> None:
    swarm = two_nodes()
    lease = swarm.leased(NODE)
    swarm.submit(NODE, lease, structs.replace(trained(lease), delta=BLOB))
    assert verdict_on(swarm, lease).code == "copied"


@pytest.mark.parametrize("scale", [0.0, 1e-3, 100.0])
def test_scaled_and_empty_deltas_fall_out_of_the_band(scale: float) -> None:
    swarm = two_nodes()
    for _ in range(2 * LEAST):
        swarm.train(NODE)
        swarm.operate()
    lease = swarm.train(FOUNDER)
    evaluation = swarm.leased(COORDINATOR)
    assert isinstance(evaluation.order, EvaluateOrder)
    odd = structs.replace(judgement(BlobId(evaluation.order.deltas[0]), worse=False), norm=scale)
    swarm.finish(COORDINATOR, evaluation, EvaluateOutcome(judgements=[odd], flops=1.0))
    verdict = verdict_on(swarm, lease)
    assert verdict.code == "norm_out_of_band"
    assert "of the usual" in verdict.sentence


@given(
    st.lists(st.floats(0.5, 2.0), min_size=LEAST, max_size=64),
    st.floats(0.5, 2.0),
    st.floats(1e-6, 1e6),
)
def test_honest_spread_of_a_factor_of_four_is_never_refused(
    sizes: list[float], mine: float, unit: float
) -> None:
    assert outside_band(mine * unit, [size * unit for size in sizes]) == ""


def test_before_enough_is_known_nothing_is_refused() -> None:
    assert outside_band(1e9, [1.0] * (LEAST - 1)) == ""
    assert outside_band(1e9, [1.0] * LEAST) != ""
    assert outside_band(math.exp(1.0), [1.0] * LEAST) == ""


def test_credit_is_what_the_lease_asked_for_whatever_the_node_claims() -> None:
    swarm = two_nodes()
    lease = swarm.leased(NODE)
    swarm.finish(NODE, lease, structs.replace(trained(lease), flops=1e30))
    swarm.operate()
    per_step = flops_per_step(swarm.rules.charter)
    ledger = ledger_of(swarm.history, per_step)
    assert ledger.by_peer == {NODE.peer_id: lease.order.steps * per_step}
    assert ledger.entries[0].reason.startswith("held-out loss fell")


@pytest.mark.parametrize("claim", [{"samples": 2**50}, {"steps": 1}, {"samples": 0}])
def test_a_claim_of_other_work_than_leased_is_refused(claim: dict[str, int]) -> None:
    swarm = two_nodes()
    lease = swarm.leased(NODE)
    say = swarm.submit(NODE, lease, structs.replace(trained(lease), **claim)).say
    assert isinstance(say, Refusal)
    assert say.code == Code.MALFORMED
    assert "the lease asks for" in say.sentence
    swarm.finish(NODE, lease, trained(lease))
    swarm.operate()
    assert swarm.state.work.total.accepted == 1


def test_refused_work_earns_nothing_and_withdrawn_credit_is_a_line_of_its_own() -> None:
    swarm = two_nodes()
    swarm.train(NODE)
    swarm.operate(worse=True)
    assert ledger_of(swarm.history, 1.0).entries == []
    lease = swarm.train(FOUNDER)
    swarm.operate()
    given_first = next(
        e
        for e in swarm.history
        if getattr(getattr(e, "verdict", None), "lease_id", "") == lease.lease_id
    )
    refused = structs.replace(given_first.verdict, state="rejected", sentence="an audit failed")
    history = [*swarm.history, structs.replace(given_first, verdict=refused)]
    ledger = ledger_of(history, 1.0)
    assert [entry.flops for entry in ledger.entries] == [lease.order.steps, -lease.order.steps]
    assert ledger.by_peer[FOUNDER.peer_id] == 0.0


def test_a_replayed_log_gives_the_same_ledger() -> None:
    swarm = two_nodes()
    for _ in range(5):
        swarm.train(NODE)
        swarm.operate()
    assert ledger_of(swarm.history, 1.0).entries == ledger_of(list(swarm.history), 1.0).entries
    assert blob_named("a") != blob_named("b")
