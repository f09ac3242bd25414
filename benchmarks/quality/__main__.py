"""Routed experts against one big model at equal training FLOPs: computes, tabulates and draws the comparison.

    python -m benchmarks.quality run [--part 0/2] [--work DIR]  unfinished cells, one after another
    python -m benchmarks.quality swarm [--grid latent-24] [--seed 0]    the same experts once more through a real swarm
    python -m benchmarks.quality table                       benchmarks/results/quality/GRID/table.md
    python -m benchmarks.quality plot                        docs/images/quality-GRID.png and quality-GRID-clips.png

The first run films the clips (a few minutes) and measures the real ones. Interrupt it at any time and run it again:
finished cells are kept. `--part i/n` shares a grid between n processes. See docs/lab-notes.md for what was found.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from benchmarks.quality.cells import RESULTS, read_cells, write_cell
from benchmarks.quality.clips import quality_data
from benchmarks.quality.grid import GRIDS, HEADLINE, MONOLITH, Grid, grid_of
from benchmarks.quality.latents import fit_codec, with_latents
from benchmarks.quality.measure import yardstick
from benchmarks.quality.plot import write_plot, write_sheet
from benchmarks.quality.run import Bench, run_grid
from benchmarks.quality.swarm_row import swarm_cell
from benchmarks.quality.table import table_of

from kinoswarm_protocol.errors import LocalError

IMAGES = Path(__file__).parent.parent.parent / "docs" / "images"


def main(arguments: list[str]) -> int:
    """Run one of the commands; returns the exit status."""
    options = _options(arguments)
    torch.set_num_threads(1)
    grid, results = grid_of(options.grid), options.results / options.grid
    if options.command == "run":
        run_grid(_bench(grid, options.grid, options.work, results), grid, options.part, _report())
    elif options.command == "swarm":
        bench = _bench(grid, options.grid, options.work, results)
        command = f"python -m benchmarks.quality swarm --grid {options.grid} --seed {options.seed}"
        bench = replace(bench, command=command)
        name = options.grid + (f"-seed{options.seed}" if options.seed else "")
        folder = options.work / "swarms" / name
        cell = swarm_cell(bench, grid, HEADLINE, options.seed, folder, _report())
        print(write_cell(results, cell))
    elif options.command == "table":
        table = table_of(read_cells(results))
        (results / "table.md").write_text(table)
        print(table)
    else:
        cells = read_cells(results)
        write_plot(options.images / f"quality-{options.grid}.png", cells)
        bench = _bench(grid, options.grid, options.work, results)
        write_sheet(
            options.images / f"quality-{options.grid}-clips.png", bench, cells, (MONOLITH, HEADLINE)
        )
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("run", "swarm", "table", "plot"))
    parser.add_argument("--grid", choices=GRIDS, default=GRIDS[0], help="which comparison")
    parser.add_argument("--work", type=Path, default=Path("quality-out"), help="films and weights")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where cells lie")
    parser.add_argument("--images", type=Path, default=IMAGES)
    parser.add_argument("--seed", type=int, default=0, help="of the swarm's training")
    parser.add_argument(
        "--part", type=_part, default=(0, 1), help="i/n: every n-th cell from the i-th"
    )
    return parser.parse_args(arguments)


def _part(text: str) -> tuple[int, int]:
    index, count = (int(number) for number in text.split("/"))
    if not 0 <= index < count:
        raise argparse.ArgumentTypeError(f"{text}: give i/n with i from 0 to n - 1")
    return index, count


def _bench(grid: Grid, name: str, work: Path, results: Path) -> Bench:
    data = quality_data(work, grid.regime.film)
    measured_by = yardstick(data, grid.regime, work)
    if grid.regime.latent is not None:
        data = with_latents(data, fit_codec(data.fit.pixels, grid.regime.latent))
    return Bench(
        data=data,
        yardstick=measured_by,
        weights=work / "weights" / name,
        results=results,
        command=f"python -m benchmarks.quality run --grid {name}",
    )


def _report() -> Callable[[str], None]:
    started = time.monotonic()
    return lambda text: print(f"{time.monotonic() - started:7.0f} s  {text}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LocalError as error:
        sys.exit(str(error))
