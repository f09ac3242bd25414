"""Computes cells that are not finished yet, one after another. Owns the order of work inside a cell.

A killed run loses the cell that it was in and nothing else; two runs share a grid by taking odd and even entries. The
weights of finished cells stay in the working folder for sheets and further measurements.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import torch
from benchmarks.quality.cells import Cell, cell_path, commit_here, machine_words, write_cell
from benchmarks.quality.clips import QualityData
from benchmarks.quality.grid import Entry, Grid, Measurement
from benchmarks.quality.measure import (
    Figures,
    Routing,
    Yardstick,
    figures_of,
    generate,
    heldout_loss,
    router_accuracy,
)
from benchmarks.quality.regime import Regime, model_of
from benchmarks.quality.sides import Setup, TrainedSide, budget_of, partition_of, train_side

from kinoswarm_model.checkpoints import weights_of
from kinoswarm_model.evaluation.aesthetic import NotAtHand, aesthetic_predictor
from kinoswarm_model.experts import build_expert, count_parameters
from kinoswarm_model.router import build_router

TIMES = (0.3, 0.5, 0.7, 0.9)
_THRESHOLD = 0.2
Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where the work is done and what it reads."""

    data: QualityData
    yardstick: Yardstick
    weights: Path
    results: Path
    command: str
    aesthetic_weights: Path | None = None


def run_grid(bench: Bench, grid: Grid, part: tuple[int, int], report: Report) -> None:
    """All unfinished cells whose place in the grid is part[0] modulo part[1]."""
    for entry in grid.entries[part[0] :: part[1]]:
        if not cell_path(bench.results, entry.name, entry.seed).exists():
            report(f"{entry.name}, seed {entry.seed}")
            cell = run_cell(bench, grid, entry, report)
            report(f"wrote {write_cell(bench.results, cell)}")


def run_cell(bench: Bench, grid: Grid, entry: Entry, report: Report) -> Cell:
    """Train one side and measure it."""
    return measured_cell(bench, grid, entry, _trained(bench, grid.regime, entry, report), report)


def measured_cell(
    bench: Bench, grid: Grid, entry: Entry, trained: "Trained", report: Report
) -> Cell:
    """Measure a side as the grid measures every one."""
    commit, regime, side = commit_here(), grid.regime, trained.side
    report("guidance")
    sweep = _sweep(bench, regime, side, grid.measurement)
    best = min(sweep, key=lambda figures: figures.frechet.both.limit)
    figures = best
    if entry.in_full:
        report(f"{grid.measurement.clips} clips at guidance {best.routing.guidance}")
        figures = measured(bench, regime, side, best.routing, grid.measurement.clips)
    report("the rest")
    return Cell(
        name=entry.name,
        seed=entry.seed,
        regime=regime,
        setup=entry.setup,
        parameters=count_parameters(model_of(regime)),
        spent=side.spent,
        heldout_loss=heldout_loss(side, bench.data, regime),
        router_accuracy_by_t=[(t, router_accuracy(side, bench.data, t)) for t in TIMES],
        guidance_sweep=sweep,
        figures=[figures],
        alike=[
            measured(bench, regime, side, Routing(guidance=guidance), grid.measurement.clips)
            for guidance in grid.measurement.alike
            if entry.in_full
        ],
        routings=[
            measured(bench, regime, side, routing, figures.num_clips)
            for routing in _routings(entry, best.routing.guidance)
        ],
        real=bench.yardstick.real,
        aesthetic=_aesthetic(bench, regime, side, figures.routing, grid.measurement),
        cpu_seconds=trained.cpu_seconds,
        command=bench.command,
        machine=machine_words(),
        commit=commit,
        note=trained.note,
        trained_at=trained.commit,
    )


@dataclass(frozen=True)
class Trained:
    """One side's networks and where they come from."""

    side: TrainedSide
    cpu_seconds: float
    commit: str
    note: str = ""


def _trained(bench: Bench, regime: Regime, entry: Entry, report: Report) -> Trained:
    """Train, or take the kept weights of the very same training: how clips are sampled is no part of it."""
    from safetensors import safe_open

    path = bench.weights / f"{entry.name}-seed{entry.seed}.safetensors"
    wanted = training_name(regime, entry)
    if path.exists():
        with safe_open(path, "pt") as file:
            kept = file.metadata() or {}
        if kept.get("training") == wanted:
            side = load_side(bench, regime, entry.setup, entry.seed, entry.name)
            return Trained(side, float(kept["cpu_seconds"]), kept["commit"])
    commit, started = commit_here(), time.process_time()
    side = train_side(bench.data, regime, entry.setup, entry.seed, report)
    cpu_seconds = time.process_time() - started
    facts = {"training": wanted, "cpu_seconds": str(cpu_seconds), "commit": commit}
    _save(path, side, facts)
    return Trained(side, cpu_seconds, commit)


def training_name(regime: Regime, entry: Entry) -> str:
    """Everything that decides the weights, as a hash."""
    same = replace(regime, sample_steps=0)
    return hashlib.sha256(msgspec.json.encode((same, entry.setup, entry.seed))).hexdigest()


def measured(
    bench: Bench, regime: Regime, side: TrainedSide, routing: Routing, num_clips: int
) -> Figures:
    """Generate and measure."""
    clips, shares = generate(side, bench.data, regime, routing, num_clips)
    return figures_of(clips, shares, bench.data, (bench.yardstick, regime, routing))


def load_side(bench: Bench, regime: Regime, setup: Setup, seed: int, name: str) -> TrainedSide:
    """The networks of a finished cell, from the working folder."""
    from safetensors.torch import load_file

    model = model_of(regime)
    tensors = load_file(bench.weights / f"{name}-seed{seed}.safetensors")
    experts = [build_expert(model, seed=seed) for _ in range(setup.num_experts)]
    for k, expert in enumerate(experts):
        expert.load_state_dict(_under(tensors, f"expert{k}."))
        expert.eval()
    router = None
    if setup.num_experts > 1:
        router = build_router(model, setup.num_experts, seed=seed)
        router.load_state_dict(_under(tensors, "router."))
        router.eval()
    _, cluster_of_place = partition_of(bench.data, setup, seed)
    return TrainedSide(experts, router, cluster_of_place, budget_of(regime, setup))


def _routings(entry: Entry, guidance: float) -> list[Routing]:
    """Those beside top-1."""
    if not entry.all_routings:
        return []
    return [
        Routing(guidance=guidance, threshold=_THRESHOLD),
        *(
            Routing(guidance=guidance, top_k=top_k)
            for top_k in sorted({2, entry.setup.num_experts})
        ),
    ]


def _sweep(
    bench: Bench, regime: Regime, side: TrainedSide, measurement: Measurement
) -> list[Figures]:
    return [
        measured(bench, regime, side, Routing(guidance=guidance), measurement.sweep_clips)
        for guidance in measurement.guidances
    ]


def _aesthetic(
    bench: Bench, regime: Regime, side: TrainedSide, routing: Routing, measurement: Measurement
) -> str:
    predictor = aesthetic_predictor(bench.aesthetic_weights)
    if isinstance(predictor, NotAtHand):
        return f"not at hand: {predictor.reason}"
    clips, _ = generate(side, bench.data, regime, routing, measurement.sweep_clips)
    return f"{predictor.scores(clips).mean():.3f}"


def _save(path: Path, side: TrainedSide, facts: dict[str, str]) -> None:
    from safetensors.torch import save_file

    tensors = {
        f"expert{k}.{name}": tensor
        for k, expert in enumerate(side.experts)
        for name, tensor in expert.state_dict().items()
    }
    if side.router is not None:
        tensors |= {f"router.{name}": tensor for name, tensor in weights_of(side.router).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, facts)


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
