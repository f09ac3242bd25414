"""What cutting an expert's training into segments costs, and what heals it: one expert, the project's own merge.

    python -m benchmarks.quality.segments --work DIR --out benchmarks/results/segments.txt

Every way starts from the same common seed, sees the same clips and is judged on the same held-out ones at the same
noise. Steps are those of one volunteer, but for the rows of two. Owns the ways and the table.
Shapes: none of its own.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from benchmarks.quality.cells import commit_here, machine_words
from benchmarks.quality.clips import Clips, QualityData, quality_data
from benchmarks.quality.grid import GRIDS, HEADLINE, Grid, grid_of
from benchmarks.quality.latents import fit_codec, with_latents
from benchmarks.quality.regime import model_of
from benchmarks.quality.sides import Setup, budget_of, partition_of
from benchmarks.quality.training import (
    TrainPlan,
    batch_of,
    heldout_losses,
    optimizer_settings,
    train_denoiser,
)
from torch import Tensor

from kinoswarm_model.checkpoints import weights_of
from kinoswarm_model.delta import read_delta, write_delta
from kinoswarm_model.delta_codecs import codec_of
from kinoswarm_model.experts import Expert, build_expert
from kinoswarm_model.flow import losses_of, times_of
from kinoswarm_model.merge import Contribution, OuterSettings, merge
from kinoswarm_model.training import DECAY_SHARE, Trainer
from kinoswarm_model.training_data import Batch
from kinoswarm_protocol.specs import ModelSpec

Weights = dict[str, Tensor]
VERSIONS = 4
_OUTER = OuterSettings(rate=0.7, momentum=0.9, norm_clip=3.0)
_PLAIN = OuterSettings(rate=1.0, momentum=0.0, norm_clip=3.0)
_EMA = 0.5
"""Of versions, not of steps."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to spend the steps."""

    name: str
    versions: int = VERSIONS
    volunteers: int = 1
    times_steps: int = 1
    """Steps of a volunteer as a multiple of the usual."""
    keeps_moments: bool = False
    decays_each: bool = True
    """The rate falls to zero in every segment; otherwise only in the last one."""
    decay_share: float = DECAY_SHARE
    codec: str | None = None
    outer: OuterSettings = _OUTER
    averages: bool = False
    """Judge the moving average of versions instead of the last."""


WAYS = (
    Way(name="bare loop", versions=1),
    Way(name=f"{VERSIONS} segments"),
    Way(name=f"{VERSIONS} segments, int4 deltas", codec="int4.1"),
    Way(name=f"{VERSIONS} segments, moments kept", keeps_moments=True),
    Way(name=f"{VERSIONS} segments, rate falls in the last only", decays_each=False),
    Way(
        name=f"{VERSIONS} segments, both",
        keeps_moments=True,
        decays_each=False,
    ),
    Way(name=f"{2 * VERSIONS} segments", versions=2 * VERSIONS),
    Way(name=f"{4 * VERSIONS} segments", versions=4 * VERSIONS),
    Way(name=f"{4 * VERSIONS} segments, moments kept", versions=4 * VERSIONS, keeps_moments=True),
    Way(name=f"{VERSIONS} segments, average of versions", averages=True),
    Way(name=f"{VERSIONS} segments, falls over the last fifth", decay_share=0.2),
    Way(
        name=f"{4 * VERSIONS} segments, falls over the last fifth",
        versions=4 * VERSIONS,
        decay_share=0.2,
    ),
    Way(name="one volunteer, twice the steps", times_steps=2),
    Way(name="two volunteers, rate 0.7, momentum 0.9", volunteers=2),
    Way(name="two volunteers, plain mean", volunteers=2, outer=_PLAIN),
)


@dataclass(frozen=True)
class Bench:
    """One cluster: what is trained on and judged by, and where everything starts."""

    training: Clips
    heldout: Clips
    model: ModelSpec
    start: Weights
    steps: int
    batch_size: int
    learning_rate: float


def heldout_loss_of(bench: Bench, way: Way, seed: int, folder: Path) -> float:
    """Train this way and judge the last version (or the average of all)."""
    weights, momentum, average = bench.start, None, bench.start
    moments: list[Weights | None] = [None] * way.volunteers
    steps = way.times_steps * bench.steps // way.versions
    for version in range(way.versions):
        contributions = []
        for volunteer in range(way.volunteers):
            chance = 1000 * seed + 10 * version + volunteer
            plan = TrainPlan(
                steps=steps,
                batch_size=bench.batch_size,
                learning_rate=bench.learning_rate,
                seed=chance,
                decays=way.decays_each or version == way.versions - 1,
                decay_share=way.decay_share,
            )
            trained, moments[volunteer] = segment(
                bench, weights, plan, moments[volunteer] if way.keeps_moments else None, version
            )
            contributions.append((f"{volunteer}", trained))
        weights, momentum = _merged(way, weights, contributions, momentum, folder)
        average = {n: torch.lerp(average[n], weights[n], _EMA) for n in weights}
    return judged(bench, average if way.averages else weights)


def segment(
    bench: Bench, base: Weights, plan: TrainPlan, moments: Weights | None, version: int
) -> tuple[Weights, Weights]:
    """Weights after the plan's steps from `base`, and the optimizer's state; as the worker does it."""
    expert = _expert(bench.model, base)
    recipe = bench.model.recipe

    def losses(batch: Batch) -> Tensor:
        predicted = expert(batch.x_t_BCTHW, batch.t_B, batch.text_tokens_BLD, batch.text_mask_BL)
        return losses_of(predicted, batch.x_0_BCTHW, batch.eps_BCTHW, batch.t_B, recipe)

    trainer = Trainer(expert, losses, optimizer_settings(plan), torch.device("cpu"))
    if moments is not None:
        own = {f"w:{n}": p.detach().clone() for n, p in expert.named_parameters()}
        trainer.restore({**moments, **own}, step=version * plan.steps)
        trainer.step = 0
    chance = torch.Generator().manual_seed(plan.seed)
    for _ in range(plan.steps):
        rows = torch.randint(len(bench.training), (plan.batch_size,), generator=chance)
        trainer.train_step(
            batch_of(
                bench.training, rows, lambda n: times_of(n, recipe), recipe.text_dropout, chance
            )
        )
    kept = {n: t.clone() for n, t in trainer.state().items() if not n.startswith("w:")}
    return weights_of(expert.network), kept


@torch.no_grad()
def judged(bench: Bench, weights: Weights) -> float:
    """Mean held-out loss at fixed noise and times."""
    expert = _expert(bench.model, weights).eval()
    rows = torch.arange(len(bench.heldout))
    return float(heldout_losses(expert, bench.heldout, rows, bench.model, seed=7).mean())


def _merged(
    way: Way,
    base: Weights,
    contributions: Sequence[tuple[str, Weights]],
    momentum: Weights | None,
    folder: Path,
) -> tuple[Weights, Weights | None]:
    """The next version, through delta files where the way has a codec."""
    if way.codec is None and len(contributions) == 1:
        return contributions[0][1], None
    entries, shapes = [], {name: tuple(tensor.shape) for name, tensor in base.items()}
    for key, weights in contributions:
        path = folder / f"{key}.delta"
        write_delta(path, base, weights, codec_of(way.codec or "int8.1"))
        entries.append(Contribution(key=key, weight=1.0, delta=read_delta(path, shapes)))
    done = merge(base, entries, way.outer, momentum)
    return done.weights, done.momentum


def _expert(model: ModelSpec, weights: Weights) -> Expert:
    expert = build_expert(model, seed=0)
    expert.network.load_state_dict(weights)
    return expert


def benches(data: QualityData, grid: Grid, setup: Setup, clusters: Sequence[int]) -> list[Bench]:
    """One per cluster, all from one common seed."""
    model, spent = model_of(grid.regime), budget_of(grid.regime, setup)
    batch_size = setup.batch_size // setup.num_experts
    first = build_expert(model, seed=0)
    plan = TrainPlan(
        steps=spent.seed_steps, batch_size=batch_size, learning_rate=setup.learning_rate, seed=0
    )
    train_denoiser(first, data.training, model, plan)
    label_N, cluster_of_place = partition_of(data, setup, seed=0)
    held_N = cluster_of_place[data.heldout.place]
    return [
        Bench(
            training=data.training.only(np.flatnonzero(label_N == k)),
            heldout=data.heldout.only(np.flatnonzero(held_N == k)),
            model=model,
            start=weights_of(first.network),
            steps=spent.expert_steps,
            batch_size=batch_size,
            learning_rate=setup.learning_rate,
        )
        for k in clusters
    ]


def table(found: dict[str, list[float]]) -> str:
    """Held-out loss of every way as a ratio to the bare loop of the same cluster and seed; medians with the range."""
    bare, lines = found[WAYS[0].name], []
    for name, losses in found.items():
        ratios = [loss / other for loss, other in zip(losses, bare, strict=True)]
        lines.append(
            f"{name:48}{statistics.mean(losses):9.4f}{statistics.median(ratios):9.4f}"
            f"{min(ratios):9.4f} to {max(ratios):.4f}"
        )
    head = f"{'way':48}{'loss':>9}{'÷ bare':>9}{'from':>9} to"
    return "\n".join([head, *lines])


def main(arguments: list[str]) -> int:
    """Run all ways; prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("quality-out"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--clusters", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--ways", default="", help="only the bare loop and ways whose name has this"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    commit, grid = commit_here(), grid_of(GRIDS[0])
    assert grid.regime.latent is not None
    data = quality_data(options.work, grid.regime.film)
    data = with_latents(data, fit_codec(data.fit.pixels, grid.regime.latent))
    setup = replace(next(entry.setup for entry in grid.entries if entry.name == HEADLINE))
    ready = benches(data, grid, setup, range(options.clusters))
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in (WAYS[0], *(one for one in WAYS[1:] if options.ways in one.name)):
            found[way.name] = [
                heldout_loss_of(bench, way, seed, Path(folder))
                for bench in ready
                for seed in range(options.seeds)
            ]
            print(way.name, found[way.name], file=sys.stderr, flush=True)
    words = " ".join(["python -m benchmarks.quality.segments", *arguments[2:]])
    head = (
        f"{words}\n{machine_words()}, commit {commit[:8]}\n"
        f"{options.clusters} clusters x {options.seeds} seeds, {ready[0].steps} steps at batch "
        f"{ready[0].batch_size} from one common seed; held-out loss of the cluster's own clips.\n"
    )
    text = f"{head}\n{table(found)}\n"
    print(text)
    if options.out:
        options.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
