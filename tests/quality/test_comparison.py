"""The whole comparison at toy size: budgets, both sides, resuming by cell, the table and the plot."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.quality.cells import Cell, read_cells
from benchmarks.quality.flop_count import expert_step_flops
from benchmarks.quality.measure import generate, spread_rows
from benchmarks.quality.regime import model_of
from benchmarks.quality.run import Bench, load_side, run_grid
from benchmarks.quality.sides import budget_of, partition_of
from benchmarks.quality.table import table_of
from benchmarks.quality.together import train_together
from benchmarks.quality.training import TrainPlan, optimizer_settings, train_denoiser
from quality.toy import (
    EXPERTS,
    GRID,
    MONOLITH,
    RANDOM_PARTITION,
    REGIME,
    toy_bench,
    toy_data,
)

from kinoswarm_model.experts import build_expert
from kinoswarm_model.training import learning_rate
from kinoswarm_protocol.errors import LocalError


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return toy_bench(tmp_path_factory.mktemp("quality"))


@pytest.fixture(scope="module")
def cells(bench: Bench) -> list[Cell]:
    run_grid(bench, GRID, (0, 1), lambda _: None)
    return read_cells(bench.results)


def test_seed_router_and_experts_together_cost_at_most_what_the_monolith_does() -> None:
    monolith, experts = budget_of(REGIME, MONOLITH), budget_of(REGIME, EXPERTS)
    assert monolith.total == monolith.budget == experts.budget
    assert experts.seed > 0
    assert experts.router > 0
    one_step_of_all = experts.experts / experts.expert_steps
    assert experts.budget - one_step_of_all < experts.total <= experts.budget
    assert experts.expert_steps < REGIME.steps


def test_counted_flops_grow_with_the_batch() -> None:
    model = model_of(REGIME)
    small, large = expert_step_flops(model, 4), expert_step_flops(model, 8)
    assert 1.5 * small < large <= 2 * small


def test_experts_trained_side_by_side_are_those_trained_apart() -> None:
    data, model = toy_data(), model_of(REGIME)
    label, _ = partition_of(data, EXPERTS, 0)
    own = [data.training.only(np.flatnonzero(label == k)) for k in range(2)]
    plan = TrainPlan(steps=6, batch_size=8, learning_rate=3e-3, seed=5)
    together = [build_expert(model, seed=0) for _ in own]
    train_together(together, own, model, plan)
    for k, clips in enumerate(own):
        apart = build_expert(model, seed=0)
        alone = TrainPlan(steps=6, batch_size=8, learning_rate=3e-3, seed=5 + k)
        train_denoiser(apart, clips, model, alone)
        torch.testing.assert_close(
            dict(together[k].state_dict()), dict(apart.state_dict()), rtol=1e-3, atol=1e-4
        )


def test_a_seed_that_is_trained_on_keeps_its_learning_rate() -> None:
    plan = TrainPlan(steps=100, batch_size=8, learning_rate=1e-3, seed=0)
    for decays, last in ((True, 2e-5), (False, 1e-3)):
        settings = optimizer_settings(replace(plan, decays=decays))
        assert learning_rate(50, settings) == pytest.approx(1e-3)
        assert learning_rate(99, settings) == pytest.approx(last)


def test_a_place_is_never_cut_by_semantic_clusters_and_is_by_random_ones() -> None:
    data = toy_data()
    semantic, cluster_of_place = partition_of(data, EXPERTS, 0)
    assert (semantic == cluster_of_place[data.training.place]).all()
    assert set(semantic.tolist()) == {0, 1}
    random, _ = partition_of(data, RANDOM_PARTITION, 0)
    first_place = random[data.training.place == 0]
    assert set(first_place.tolist()) == {0, 1}


def test_any_number_of_held_out_captions_covers_the_places_alike() -> None:
    heldout = toy_data().heldout
    for count in (4, 8, 12):
        places = heldout.place[spread_rows(heldout, count)]
        assert np.ptp(np.bincount(places, minlength=4)) == 0


def test_every_cell_is_measured_with_each_routing_and_the_floor_beside_it(
    cells: list[Cell],
) -> None:
    experts, monolith, _ = cells
    assert [figures.routing.name for figures in experts.routings] == ["threshold 0.2", "top-2"]
    assert not monolith.routings
    for cell in cells:
        best = min(cell.guidance_sweep, key=lambda figures: figures.frechet.both.limit)
        assert {f.routing.guidance for f in (*cell.figures, *cell.routings)} == {
            best.routing.guidance
        }
        assert cell.figures[0].frechet.both.value > cell.real.frechet.both.value
        assert cell.aesthetic.startswith("not at hand: ")
        assert cell.machine.count(",") == 2


def test_a_cell_that_only_selects_is_kept_apart_from_those_measured_in_full(
    cells: list[Cell],
) -> None:
    selects = cells[2]
    assert [figures.num_clips for figures in selects.figures] == [8]
    full, few = table_of(cells).split("All trainings with 8 clips")
    assert "random-2" not in full
    # Once at its best guidance, once at each of the two that every side is measured at.
    assert few.count("| random-2, top-1 |") == few.count("| monolith |") == 3


def test_finished_cells_are_not_computed_again(bench: Bench, cells: list[Cell]) -> None:
    said: list[str] = []
    run_grid(bench, GRID, (0, 1), said.append)
    assert said == []
    assert read_cells(bench.results) == cells


def test_a_finished_cells_networks_make_the_same_clips_again(
    bench: Bench, cells: list[Cell]
) -> None:
    cell = next(cell for cell in cells if cell.name == "experts-2")
    sides = [load_side(bench, REGIME, cell.setup, cell.seed, cell.name) for _ in range(2)]
    routing = cell.figures[0].routing
    first, second = (generate(side, bench.data, REGIME, routing, 8)[0] for side in sides)
    assert (first == second).all()


def test_the_table_is_made_of_cells_and_divides_by_the_monolith(cells: list[Cell]) -> None:
    table = table_of(cells)
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert lines[2].startswith("| monolith | 1 |")
    assert "| 1.00 |" in lines[2]
    experts, monolith, _ = cells
    ratio = monolith.figures[0].frechet.both.limit / experts.figures[0].frechet.both.limit
    own = next(line for line in lines if line.startswith("| experts-2, top-1 |"))
    assert f"| {ratio:.2f} |" in own
    with pytest.raises(LocalError, match="no finished cell of the monolith"):
        table_of([experts])


def test_plot_and_sheet_are_written(tmp_path: Path, bench: Bench, cells: list[Cell]) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.quality.plot import write_plot, write_sheet

    write_plot(tmp_path / "bars.png", cells)
    write_sheet(tmp_path / "clips.png", bench, cells, ("monolith", "experts-2"))
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("bars.png", "clips.png"))
