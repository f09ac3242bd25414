"""Pictures of a run. Owns the drawing; matplotlib comes with the extra `eval`."""

from pathlib import Path

from kinoswarm_simulator.plan import HOUR_MS
from kinoswarm_simulator.report import Report
from kinoswarm_simulator.world import World


def write_plots(folder: Path, world: World, report: Report) -> list[Path]:
    """Versions over time and by cluster, where volunteers' time went, what checks cost. Returns the files."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    (progress, balance), (time, checks) = figure.subplots(2, 2)
    progress.plot(
        [at / HOUR_MS for at, _ in world.versions_at], [mean for _, mean in world.versions_at]
    )
    progress.set(xlabel="hours", ylabel="mean version of the experts")
    lines = sorted(line[-1].position for line in world.state.versions.values())
    balance.bar(range(len(lines)), lines)
    balance.set(xlabel="experts, the least trained first", ylabel="version")
    shares = {"good": report.utilisation, "idle": report.idle, **report.lost}
    time.barh(list(shares), [100 * share for share in shares.values()])
    time.set(xlabel="per cent of honest volunteers' time")
    charged = {name: share for name, share in report.charged.items() if name != "train"}
    checks.barh(list(charged), [100 * share for share in charged.values()])
    checks.set(xlabel="FLOPs, per cent of the training's")
    path = folder / f"simulation-{report.nodes}-nodes-seed-{report.seed}.png"
    figure.savefig(path, dpi=120)
    return [path]
