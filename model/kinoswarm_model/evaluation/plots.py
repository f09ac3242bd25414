"""Plots of an evaluation. Owns what is drawn; matplotlib is asked for only here."""

from pathlib import Path
from typing import Any

from kinoswarm_model.evaluation.report import Comparison, EvaluationReport
from kinoswarm_protocol.errors import LocalError

_INK, _OURS, _SEED, _FLOOR = "#1c1e22", "#2f6fde", "#b9bdc6", "#3a9d6e"
_DPI = 120


def write_plots(report: EvaluationReport, folder: Path) -> list[Path]:
    """distances.png, router.png and shares.png in `folder`. Raises LocalError when matplotlib is not installed."""
    drawings = {"distances": _distances, "router": _router, "shares": _shares}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in drawings.items():
        path = folder / f"{name}.png"
        _saved(path, draw, report)
        written.append(path)
    return written


def _saved(path: Path, draw: Any, report: EvaluationReport) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LocalError("plots need matplotlib: pip install 'kinoswarm[eval]'") from error
    figure = Figure(figsize=(6.4, 3.6), dpi=_DPI, layout="constrained")
    draw(figure.subplots(), report)
    temporary = path.with_name(f".{path.name}.part")
    figure.savefig(temporary, format="png", metadata={"Software": None})
    temporary.replace(path)


def _distances(axes: Any, report: EvaluationReport) -> None:
    """Release, seed version and other real clips; whole and motion alone."""
    groups = {
        "what is seen and how it moves": report.frechet,
        "motion alone": report.frechet_motion,
    }
    for row, found in enumerate(groups.values()):
        for offset, (value, colour) in enumerate(_bars(found)):
            axes.barh(row + 0.25 * (offset - 1), value, height=0.22, color=colour)
            axes.text(value, row + 0.25 * (offset - 1), f" {value:.3f}", va="center", color=_INK)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_xlabel("Fréchet distance (lower is better)")
    axes.set_title(f"{report.swarm_name}, release {report.release_version}")
    named = {"release": _OURS, "seed version": _SEED, "other real clips": _FLOOR}
    for label, colour in named.items():
        axes.barh([], [], color=colour, label=label)
    axes.legend(frameon=False)
    axes.margins(x=0.15)


def _bars(found: Comparison) -> list[tuple[float, str]]:
    seed = [(found.seed.value, _SEED)] if found.seed is not None else []
    return [(found.release.value, _OURS), *seed, (found.floor, _FLOOR)]


def _router(axes: Any, report: EvaluationReport) -> None:
    """Router accuracy over t, with what guessing would reach."""
    times, accuracy = zip(*report.router_accuracy_by_t, strict=True)
    axes.plot(times, accuracy, marker="o", color=_OURS)
    axes.axhline(1 / len(report.cluster_labels), color=_SEED, linestyle="--")
    axes.set(xlabel="t (0 is data, 1 is noise)", ylabel="router accuracy", ylim=(0, 1.02))


def _shares(axes: Any, report: EvaluationReport) -> None:
    """Which expert was picked for which cluster's captions."""
    axes.imshow(report.share_by_cluster, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for row, shares in enumerate(report.share_by_cluster):
        for column, share in enumerate(shares):
            colour = "white" if share > 0.5 else _INK
            axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=colour)
    labels = [label[:28] for label in report.cluster_labels]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks(range(len(labels)), [str(k) for k in range(len(labels))])
    axes.set(xlabel="expert", ylabel="cluster of the caption")
