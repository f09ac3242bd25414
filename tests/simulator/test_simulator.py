"""Simulated swarms: repeatable, with the invariants held under a bad network, and attackers found."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kinoswarm_cli.simulate_command import app
from kinoswarm_coordinator.state import SwarmState
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.messages import Outcome
from kinoswarm_simulator.behaviours import HOSTILE
from kinoswarm_simulator.plan import DAY_MS, HOUR_MS, Churn, Partition, Plan, Wire
from kinoswarm_simulator.report import Report, check_invariants, report_of
from kinoswarm_simulator.volunteers import Volunteer, volunteer
from kinoswarm_simulator.world import World

QUIET = Churn(vanish_per_day=0.0, fail=0.0, always_on=1.0)


def run(**wanted: object) -> tuple[World, Report]:
    world = World(Plan(**{"nodes": 24, "days": 0.4, "clusters": 4, **wanted}))  # type: ignore[arg-type]
    world.run()
    check_invariants(world)
    return world, report_of(world)


def test_equal_seeds_give_equal_runs_and_other_seeds_others() -> None:
    one, same, other = run(seed=3)[1], run(seed=3)[1], run(seed=4)[1]
    assert one == same
    assert one != other


def test_versions_are_cut_and_work_is_not_lost_where_nothing_goes_wrong() -> None:
    _, report = run(churn=QUIET, wire=Wire(loss=0.0, duplicate=0.0), days=0.8)
    assert report.versions_least >= 1
    assert report.lost == {}
    assert report.honest_banned == 0
    assert 0.5 < report.utilisation <= 1.0


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0.0, 0.4),
    duplicate=st.floats(0.0, 0.5),
    latency_ms=st.floats(1.0, 5_000.0),
    name=st.sampled_from(HOSTILE),
)
def test_no_network_and_no_attacker_makes_work_count_twice(
    seed: int, loss: float, duplicate: float, latency_ms: float, name: str
) -> None:
    wire = Wire(latency_ms=latency_ms, loss=loss, duplicate=duplicate)
    _, report = run(seed=seed, wire=wire, nodes=12, days=0.25, hostile={name: 0.25})
    assert report.honest_banned == 0, "not even three of twelve that collude frame anybody"


def test_a_third_that_colludes_bans_nobody_honest() -> None:
    """Seed 1: by votes alone 6 of 83 honest volunteers were banned, and 12 while colluders confirmed each other."""
    _, report = run(nodes=100, days=1.0, clusters=0, seed=1, hostile={"colluding": 0.3})
    found = {one.behaviour: one for one in report.detections}
    assert report.honest_banned == 0
    assert found["colluding"].banned >= 0.9 * found["colluding"].volunteers


def test_who_is_cut_off_for_hours_loses_no_work_and_comes_back() -> None:
    from_ms, until_ms = 3 * HOUR_MS, 5 * HOUR_MS
    partition = Partition(share=0.5, from_ms=from_ms, until_ms=until_ms)
    wire = Wire(loss=0.0, duplicate=0.0, partitions=(partition,))
    cut_off = {number for number in range(24) if partition.cuts_off(number, from_ms)}
    handed_in: list[tuple[int, int]] = []
    world = World(Plan(nodes=24, days=0.3, clusters=4, churn=QUIET, wire=wire))
    arrives = world._work_arrives

    def noted(one: Volunteer, lease_id: LeaseId, outcome: Outcome) -> None:
        handed_in.append((world.now_ms, one.number))
        arrives(one, lease_id, outcome)

    world._work_arrives = noted  # type: ignore[method-assign]
    world.run()
    check_invariants(world)
    late = from_ms + HOUR_MS / 60  # what was under way when it began has arrived
    during = {number for at, number in handed_in if late < at < until_ms}
    assert 8 <= len(cut_off) <= 16
    assert during
    assert not during & cut_off
    assert {number for at, number in handed_in if at > until_ms} & cut_off
    assert report_of(world).honest_banned == 0


def test_state_is_the_fold_of_what_was_recorded() -> None:
    from kinoswarm_coordinator.fold import fold

    history = []
    world = World(Plan(nodes=12, days=0.25, clusters=2))
    record = world.record
    world.record = lambda events: (history.extend(events), record(events))[1]  # type: ignore[method-assign]
    world.run()
    assert fold(SwarmState(), history) == world.state


@pytest.mark.parametrize("name", ["lazy", "random", "scaled", "zero"])
def test_hostile_work_is_refused_and_its_senders_are_banned_or_out(name: str) -> None:
    _, report = run(nodes=40, days=0.6, hostile={name: 0.2}, seed=1)
    found = next(line for line in report.detections if line.behaviour == name)
    assert found.contributions > 0
    assert found.merged == 0
    assert report.honest_banned == 0


def test_machines_sleep_and_vanish() -> None:
    from random import Random

    one = volunteer(Plan(churn=Churn(always_on=0.0)), 0, 0, Random(1))
    assert 0 < one.on_for_ms < DAY_MS
    ends = one.finishes_at_ms(0, 2 * one.on_for_ms)
    assert ends >= DAY_MS
    assert one.on_between(0, ends) == pytest.approx(2 * one.on_for_ms, abs=2)


def test_the_command_prints_its_table_and_json_and_says_what_a_wrong_share_is() -> None:
    runner = CliRunner()
    words = ["--nodes", "8", "--days", "0.1", "--clusters", "2"]
    told = runner.invoke(app, words)
    assert told.exit_code == 0
    assert "utilisation" in told.output
    found = json.loads(runner.invoke(app, [*words, "--json"]).output)
    assert found["nodes"] == 8
    assert found["charged"]["train"] == 1.0
    assert {"evaluate", "route"} <= set(found["charged"])
    cut_off = runner.invoke(app, [*words, "--partition", "0.5:0-1"])
    assert cut_off.exit_code == 0
    assert cut_off.output != told.output
    for text in ("0.5", "2:0-1", "0.5:3-1", "nan:0-1", "0.5:0-inf"):
        wrong = runner.invoke(app, [*words, "--partition", text])
        assert "SHARE:FROM-UNTIL" in str(wrong.exception)
    wrong = runner.invoke(app, [*words, "--hostile", "sloth=0.1"])
    assert isinstance(wrong.exception, LocalError)
    assert "lazy" in str(wrong.exception)
