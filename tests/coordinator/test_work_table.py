"""The sums beside contributions: equal to counting anew, whatever happened."""

from coordinator.small_swarm import SmallSwarm, rules, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol.samples import NODE

from kinoswarm_coordinator.work_table import COUNTED, HOUR_MS, WorkTable
from kinoswarm_protocol.messages import Lease, TrainOutcome


def counted_anew(table: WorkTable) -> tuple[dict[str, int], int, int]:
    trained = [work for work in table.values() if isinstance(work.outcome, TrainOutcome)]
    phases: dict[str, int] = {}
    for work in trained:
        phases[work.phase] = phases.get(work.phase, 0) + 1
    good = [work.outcome for work in trained if work.phase in COUNTED]
    return phases, len(good), sum(o.samples for o in good)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["train", "operate", "worse"]), min_size=1, max_size=12))
def test_sums_equal_counting_anew_after_any_history(steps: list[str]) -> None:
    swarm = SmallSwarm(rules(2, target_version=50))
    swarm.hello(NODE)
    for step in steps:
        if step == "train":
            lease = swarm.pull(NODE)
            if isinstance(lease, Lease):
                swarm.finish(NODE, lease, trained(lease))
        else:
            swarm.operate(worse=step == "worse")
    table = swarm.state.work
    phases, accepted, samples = counted_anew(table)
    assert {phase: n for phase, n in table.by_phase.items() if n} == phases
    assert (table.total.accepted, table.total.samples) == (accepted, samples)
    decided = [work for work in table.values() if work.verdict is not None]
    assert len(table.decisions) == len(decided)
    assert sum(hour.accepted for hour in table.by_hour.values()) == accepted
    assert set(table.by_hour) == {work.decided_at_ms // HOUR_MS for work in decided}


def test_a_removed_contribution_leaves_every_sum() -> None:
    swarm = SmallSwarm(rules(2, target_version=50))
    swarm.hello(NODE)
    swarm.train(NODE)
    swarm.operate()
    table = swarm.state.work
    assert table.total.accepted == 1
    for lease_id in list(table):
        del table[lease_id]
    assert table.total.accepted == table.total.samples == 0
    assert not any(table.by_phase.values())
    assert not any(table.by_node.values())
