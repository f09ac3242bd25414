"""Pictures of a run. Owns the drawing; matplotlib comes with the extra `eval`."""

from pathlib import Path

from kinoswarm_simulator.plan import HOUR_MS
from kinoswarm_simulator.report import Report
from kinoswarm_simulator.world import World


def write_plots(folder: Path, world: World, report: Report) -> list[Path]:
    """Versions over time, and where volunteers' time went. Returns the files."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(
        [at / HOUR_MS for at, _ in world.versions_at], [mean for _, mean in world.versions_at]
    )
    left.set(xlabel="hours", ylabel="mean version of the experts")
    shares = {"good": report.utilisation, "idle": report.idle, **report.lost}
    right.barh(list(shares), [100 * share for share in shares.values()])
    right.set(xlabel="per cent of honest volunteers' time")
    path = folder / f"simulation-{report.nodes}-nodes-seed-{report.seed}.png"
    figure.savefig(path, dpi=120)
    return [path]
