"""The table of results, made from finished cells only. Owns its rows and the ratios.

Seeds of a configuration are averaged; the spread beside a mean is half the range over seeds. A ratio divides the
monolith's mean by the configuration's, so more than 1 means that the configuration is better than the monolith.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from benchmarks.quality.cells import Cell
from benchmarks.quality.grid import MONOLITH
from benchmarks.quality.measure import Figures
from msgspec import structs

from kinoswarm_protocol.errors import LocalError

Read = Callable[[Figures], float]


@dataclass(frozen=True)
class Row:
    """One configuration with one routing, over its seeds."""

    name: str
    cells: list[Cell]
    figures: list[Figures]
    """One for each cell."""

    def mean(self, read: Read) -> float:
        """Over seeds."""
        return float(np.mean([read(figures) for figures in self.figures]))

    def spread(self, read: Read) -> float:
        """Half the range over seeds; 0 for one seed."""
        return float(np.ptp([read(figures) for figures in self.figures]) / 2)


def both(figures: Figures) -> float:
    """The extrapolated distance, both halves."""
    return figures.frechet.both.limit


def coded(figures: Figures) -> float:
    """The same from held-out clips as the codec shows them; from the clips themselves where there is no codec."""
    return (figures.frechet_coded or figures.frechet).both.limit


def motion(figures: Figures) -> float:
    """The extrapolated distance of the temporal half."""
    return figures.frechet.motion.limit


def coded_motion(figures: Figures) -> float:
    """The temporal half of that."""
    return (figures.frechet_coded or figures.frechet).motion.limit


_DISTANCES = (
    ("distance", both),
    ("temporal half", motion),
    ("codec aside", coded),
    ("codec aside, temporal", coded_motion),
)


def _kinds(cells: Sequence[Cell]) -> tuple[tuple[str, Read], ...]:
    """Without a codec's figures there is nothing to set aside."""
    has_coded = any(cell.figures[0].frechet_coded is not None for cell in cells)
    return _DISTANCES if has_coded else _DISTANCES[:2]


def _head(cells: Sequence[Cell], before: str, after: str) -> list[str]:
    """The two lines that begin a table."""
    names = "".join(f" {name} | monolith ÷ this |" for name, _ in _kinds(cells))
    head = f"| {before} |{names} {after} |"
    return [head, "|---" * (head.count("|") - 1) + "|"]


def rows_of(cells: Sequence[Cell]) -> list[Row]:
    """A row for every configuration and routing with figures, the monolith first, then by distance."""
    found: dict[str, Row] = {}
    for cell in cells:
        for figures in cell.figures:
            routed = cell.setup.num_experts > 1
            name = f"{cell.name}, {figures.routing.name}" if routed else cell.name
            row = found.setdefault(name, Row(name, [], []))
            row.cells.append(cell)
            row.figures.append(figures)
    return sorted(found.values(), key=lambda row: (row.name != MONOLITH, row.mean(both)))


def full_rows_of(cells: Sequence[Cell]) -> list[Row]:
    """The rows that were measured with as many clips as the monolith: a distance of fewer is another estimate."""
    most = max((cell.figures[0].num_clips for cell in cells), default=0)
    return rows_of([structs.replace(cell, figures=_with(cell, most)) for cell in cells])


def _with(cell: Cell, num_clips: int) -> list[Figures]:
    """What was measured with so many clips at the cell's chosen guidance."""
    return [
        figures for figures in (*cell.figures, *cell.routings) if figures.num_clips == num_clips
    ]


def table_of(cells: Sequence[Cell]) -> str:
    """Markdown; raises LocalError without a finished monolith."""
    rows = full_rows_of(cells)
    if not rows or rows[0].name != MONOLITH:
        raise LocalError("no finished cell of the monolith: there is nothing to compare with")
    lines = [
        *_head(
            cells,
            "configuration | seeds | clips | guidance | distance, raw",
            "place read | motion read | motion, px/frame | held-out loss | FLOPs",
        ),
        *(_line(row, rows[0]) for row in rows),
        _real_line(cells[0]),
    ]
    return "\n".join([*_heading(cells), "", *lines, *_alike(cells), *_same_guidance(cells), ""])


def _alike(cells: Sequence[Cell]) -> list[str]:
    """The sides that were measured in full at the same guidance."""
    asked = sorted({figures.routing.guidance for cell in cells for figures in cell.alike})
    lines = []
    for guidance in asked:
        same = [structs.replace(cell, figures=_at(cell.alike, guidance)) for cell in cells]
        lines += _short_lines(same, f"{guidance:g}")
    if not lines:
        return []
    return [
        "",
        "All sides at the same guidance, with the full number of clips: the papers' protocol.",
        "",
        *_short_head(cells),
        *lines,
    ]


def _short_head(cells: Sequence[Cell]) -> list[str]:
    return _head(
        cells, "guidance | configuration | seeds", "place read | motion read | held-out loss"
    )


def _same_guidance(cells: Sequence[Cell]) -> list[str]:
    """All cells at few clips: each at its best guidance, then at the same one, which is the papers' protocol."""
    found = sorted({figures.routing.guidance for cell in cells for figures in cell.guidance_sweep})
    best = best_rows_of(cells)
    lines = [_short_line(row, best[0], "best of each") for row in best]
    for guidance in found:
        same = [structs.replace(cell, figures=_at(cell.guidance_sweep, guidance)) for cell in cells]
        lines += _short_lines(same, f"{guidance:g}")
    return [
        "",
        f"All trainings with {cells[0].guidance_sweep[0].num_clips} clips.",
        "",
        *_short_head(cells),
        *lines,
    ]


def best_rows_of(cells: Sequence[Cell]) -> list[Row]:
    """Every training with few clips at its best guidance, and with its other routings there."""
    return rows_of(
        [structs.replace(cell, figures=[_best(cell), *_few_routings(cell)]) for cell in cells]
    )


def _few_routings(cell: Cell) -> list[Figures]:
    few = cell.guidance_sweep[0].num_clips
    return [figures for figures in cell.routings if figures.num_clips == few]


def _short_lines(cells: Sequence[Cell], guidance: str) -> list[str]:
    rows = rows_of(cells)
    return [_short_line(row, rows[0], guidance) for row in rows]


def _best(cell: Cell) -> Figures:
    return min(cell.guidance_sweep, key=both)


def _at(measured: Sequence[Figures], guidance: float) -> list[Figures]:
    return [figures for figures in measured if figures.routing.guidance == guidance]


def _short_line(row: Row, monolith: Row, guidance: str) -> str:
    parts = [
        guidance,
        row.name,
        str(len(row.cells)),
        *_distances(row, monolith),
        f"{row.mean(lambda figures: figures.place_agreement):.2f}",
        f"{row.mean(lambda figures: figures.motion_agreement):.2f}",
        f"{np.mean([cell.heldout_loss for cell in row.cells]):.4f}",
    ]
    return "| " + " | ".join(parts) + " |"


def _heading(cells: Sequence[Cell]) -> list[str]:
    first = cells[0]
    regime, film, size = first.regime, first.regime.film, first.regime.network
    distance = max((c.figures[0].frechet.both for c in cells), key=lambda both: both.num_clips)
    batch = regime.batch_size
    return [
        "# Routed experts beside one big model, at equal training FLOPs",
        "",
        f"{len(cells)} trainings of {first.spent.budget / 1e12:.1f} TFLOP each. Networks of "
        f"{first.parameters:,} parameters ({size.layers} layers of width {size.heads * size.head_dim}); clips of "
        f"{film.frames} frames at {film.height}x{film.width} in {film.places} places. The monolith takes "
        f"{regime.steps:,} steps at batch {batch}; K experts, their common seed and the router share the same FLOPs, "
        f"at batch {batch}/K. Fréchet distance on TransNetV2 features, {distance.num_clips:,} generated against "
        f"{distance.num_real:,} held-out clips, {regime.sample_steps} Euler steps, each training at the guidance "
        "that is best for it. ± is half the range over seeds. Distances are extrapolated to N→∞ but for the raw one."
        + (_ABOUT_CODEC if len(_kinds(cells)) > 2 else ""),
    ]


_ABOUT_CODEC = (
    " Those with the codec aside are from the held-out clips as the codec shows them, which is all that a network "
    "can reach; choices are made by the first."
)


def _line(row: Row, monolith: Row) -> str:
    guidance = sorted({figures.routing.guidance for figures in row.figures})
    losses = [cell.heldout_loss for cell in row.cells]
    # The loss is that of top-1 routing; other routings only mix at sampling.
    loss = f"{np.mean(losses):.4f}" if row.figures[0].routing.name == "top-1" else ""
    parts = [
        row.name,
        str(len(row.cells)),
        f"{row.figures[0].num_clips:,}",
        ", ".join(f"{value:g}" for value in guidance),
        f"{row.mean(lambda figures: figures.frechet.both.value):.4f}",
        *_distances(row, monolith),
        f"{row.mean(lambda figures: figures.place_agreement):.3f}",
        f"{row.mean(lambda figures: figures.motion_agreement):.3f}",
        f"{row.mean(lambda figures: figures.motion_magnitude):.2f}",
        loss,
        f"{np.mean([cell.spent.total / cell.spent.budget for cell in row.cells]):.3f}",
    ]
    return "| " + " | ".join(parts) + " |"


def _distances(row: Row, monolith: Row) -> list[str]:
    """Each kind of distance, and the monolith's divided by it."""
    return [
        text
        for _, read in _kinds(row.cells)
        for text in (_with_spread(row, read), f"{monolith.mean(read) / row.mean(read):.2f}")
    ]


def _with_spread(row: Row, read: Read) -> str:
    """One seed has no spread."""
    mean = f"{row.mean(read):.4f}"
    return mean if len(row.cells) == 1 else f"{mean} ± {row.spread(read):.4f}"


def _real_line(cell: Cell) -> str:
    real = cell.real
    lines = [("other real clips", real.frechet, "")]
    if real.codec is not None:
        lines.append(("the held-out clips through the codec", real.codec, " | | | |"))
    return "\n".join(
        f"| {name} | | {found.both.num_clips:,} | | {found.both.value:.4f} | {found.both.limit:.4f} | | "
        f"{found.motion.limit:.4f} | |"
        + (" | | | |" if real.codec is not None else "")
        + (
            f" {real.place_agreement:.3f} | {real.motion_agreement:.3f} | {real.motion_magnitude:.2f} | | |"
            if not blank
            else " | | | | |"
        )
        for name, found, blank in lines
    )
