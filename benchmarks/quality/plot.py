"""Pictures of the comparison: distances as bars, and clips of both sides with the same captions. Owns both files.

The bars come from finished cells only; the sheet's clips from the weights that a run left in its working folder.
"""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.quality.cells import Cell
from benchmarks.quality.grid import HEADLINE, MONOLITH
from benchmarks.quality.measure import generate, spread_rows
from benchmarks.quality.run import Bench, load_side
from benchmarks.quality.table import Read, Row, best_rows_of, both, motion
from numpy.typing import NDArray

from kinoswarm_model.contact_sheet import SheetText, write_contact_sheet
from kinoswarm_protocol.errors import LocalError

_IN_LINES = (MONOLITH, HEADLINE)
"""How the names of the configurations begin that are drawn over guidance."""
_SHEET_CLIPS = 8
_SHEET_SIDE = 24
"""Rows of pixels that a clip is enlarged to at least about."""


def write_plot(path: Path, cells: Sequence[Cell]) -> None:
    """Bars of the distances at the best guidance of each, and what the same guidance on every side does to them."""
    from matplotlib.figure import Figure

    rows = [row for row in best_rows_of(cells) if row.figures[0].routing.name == "top-1"]
    figure = Figure(figsize=(13, 1.8 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, read, title in zip(
        axes[:2],
        (both, motion),
        ("each at its best guidance", "how it moves, at that guidance"),
        strict=True,
    ):
        _bars(axis, rows, read)
        axis.set_title(title)
        axis.set_xlabel("Fréchet distance, N → ∞ (lower is better)")
        axis.invert_yaxis()
    axes[1].tick_params(labelleft=False)
    _over_guidance(axes[2], cells)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _bars(axis: Any, rows: Sequence[Row], read: Read) -> None:
    values, spreads = [row.mean(read) for row in rows], [row.spread(read) for row in rows]
    places = np.arange(len(rows))
    axis.barh(
        places, values, xerr=spreads, color=[_colour(row.cells[0]) for row in rows], height=0.7
    )
    axis.set_yticks(places, [row.name.removesuffix(", top-1") for row in rows])
    for place, value, spread in zip(places, values, spreads, strict=True):
        text = f" {value:.3f} ({values[0] / value:.2f}x)"
        axis.annotate(text, (value + spread, place), va="center", fontsize=8)
    axis.margins(x=0.32)


def _over_guidance(axis: Any, cells: Sequence[Cell]) -> None:
    others = cycle(("--", ":", "-."))
    for name in dict.fromkeys(cell.name for cell in cells if cell.name.startswith(_IN_LINES)):
        own = [cell for cell in cells if cell.name == name]
        guidances = [figures.routing.guidance for figures in own[0].guidance_sweep]
        values = np.array([[both(figures) for figures in cell.guidance_sweep] for cell in own])
        colour = _colour(own[0])
        style = "-" if name in (MONOLITH, HEADLINE) else next(others)
        axis.plot(guidances, values.mean(axis=0), style, marker="o", color=colour, label=name)
    axis.set_title("the same guidance on every side")
    axis.set_xlabel("guidance")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)


def write_sheet(path: Path, bench: Bench, cells: Sequence[Cell], names: tuple[str, str]) -> None:
    """Clips of two configurations side by side: the same captions from the same noise."""
    found = {cell.name: cell for cell in cells}
    missing = [name for name in names if name not in found]
    if missing:
        raise LocalError(f"no finished cell of {', '.join(missing)}: run the grid first")
    left, right = (found[name] for name in names)
    clips = [_clips_of(bench, cell) for cell in (left, right)]
    rows = spread_rows(bench.data.heldout, len(bench.data.places))
    text = SheetText(
        title="One big model beside routed experts: equal training FLOPs",
        note=f"Same captions, noise and sampler; distance {_distance(left)} beside {_distance(right)}.",
        real=left.name,
        generated=right.name,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_contact_sheet(
        path,
        [
            (bench.data.heldout.captions[rows[i]], clips[0][i], clips[1][i])
            for i in np.linspace(0, len(rows) - 1, _SHEET_CLIPS).astype(int)
        ],
        text,
    )


def _colour(cell: Cell) -> str:
    return "#8a8f98" if cell.setup.num_experts == 1 else "#2f6f5e"


def _clips_of(bench: Bench, cell: Cell) -> NDArray[np.uint8]:
    """One clip for every place, enlarged."""
    side = load_side(bench, cell.regime, cell.setup, cell.seed, cell.name)
    count = len(bench.data.places)
    clips, _ = generate(side, bench.data, cell.regime, cell.figures[0].routing, count)
    factor = max(1, _SHEET_SIDE // clips.shape[2])
    return clips.repeat(factor, axis=2).repeat(factor, axis=3)


def _distance(cell: Cell) -> str:
    return f"{both(cell.figures[0]):.3f} ({cell.name})"
