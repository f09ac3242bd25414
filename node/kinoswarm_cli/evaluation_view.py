"""An evaluation as a table for a terminal. Owns the words; the figures are kinoswarm_model's."""

from kinoswarm_model.evaluation.report import Comparison, EvaluationReport, Figure, NotMeasured

_WIDTH = 34


def evaluation_lines(report: EvaluationReport) -> list[str]:
    """The lines of the table."""
    samples = report.samples
    lines = [
        f"{report.swarm_name}, release {report.release_version}: {samples.generated} generated clips against "
        f"{samples.heldout} held-out ones",
        _row(report.metric, "release", "seed", "real", "limit"),
        _distances("  what is seen and how it moves", report.frechet),
        _distances("  motion alone", report.frechet_motion),
        _row("other figures", "release", "", "real", ""),
    ]
    other = report.other
    for figure in (other.motion, other.fvd, other.clip_text, other.aesthetic):
        if isinstance(figure, Figure):
            lines.append(
                _row(f"  {figure.what}", f"{figure.release:.3f}", "", f"{figure.real:.3f}", "")
            )
    lines += _router(report)
    for name in ("motion", "fvd", "clip_text", "aesthetic"):
        figure = getattr(other, name)
        if isinstance(figure, NotMeasured):
            lines.append(f"not measured, {name}: {figure.reason}")
    return lines


def _router(report: EvaluationReport) -> list[str]:
    accuracy = ", ".join(f"{share:.0%} at t={t:g}" for t, share in report.router_accuracy_by_t)
    lines = [
        f"router accuracy: {accuracy}",
        f"router calibration error: {report.router_calibration_error:.3f} (0: as sure as it is right)",
        "share per expert:",
    ]
    labelled = zip(report.cluster_labels, report.share_by_expert, strict=True)
    return lines + [f"  {share:6.1%}  {label}" for label, share in labelled]


def _distances(name: str, found: Comparison) -> str:
    seed = f"{found.seed.value:.3f}" if found.seed is not None else "-"
    limit = f"{found.release.limit:.3f} ± {found.release.limit_error:.3f}"
    return _row(name, f"{found.release.value:.3f}", seed, f"{found.floor:.3f}", limit)


def _row(name: str, *cells: str) -> str:
    return f"{name:{_WIDTH}} {' '.join(f'{cell:>9}' for cell in cells)}".rstrip()
