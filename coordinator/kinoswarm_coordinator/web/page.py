"""Renders the page from a view. Owns words for times and sizes, and the loss curves; every text is escaped."""

import math
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kinoswarm_coordinator.views import SwarmView, VersionView

_TEMPLATES = Path(__file__).parent / "templates"
_CURVE = (240, 64)  # width and height of a loss curve, in SVG units
_PAD = 8


class Pages:
    """The templates, compiled once."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            ago=ago, size=size_in_words, curve=loss_curve, percent=percent, flops=flops_in_words
        )

    def overview(self, view: SwarmView, invite: str) -> str:
        """The whole page."""
        template = self._environment.get_template("overview.html")
        return template.render(view=view, invite=invite)


def ago(then_ms: int, now_ms: int) -> str:
    """How long ago, in words."""
    if not then_ms:
        return "not yet"
    seconds = max(0, now_ms - then_ms) // 1000
    for limit, divisor, unit in ((60, 1, "s"), (3_600, 60, "min"), (86_400, 3_600, "h")):
        if seconds < limit:
            return f"{seconds // divisor} {unit} ago"
    return f"{seconds // 86_400} d ago"


def size_in_words(size_bytes: float) -> str:
    """1.4 MB"""
    return _scaled(size_bytes, "B")


def flops_in_words(flops: float) -> str:
    """2.1 PFLOP"""
    return _scaled(flops, "FLOP")


def _scaled(value: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G", "T", "P"):
        if value < 1000:
            return f"{value:.1f} {prefix}{unit}" if prefix else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} E{unit}"


def percent(share: float | None) -> str:
    """34%"""
    return "–" if share is None else f"{share:.0%}"


def loss_curve(versions: Sequence[VersionView]) -> Markup:
    """Held-out loss over versions as an inline SVG with a text that says the same."""
    points = [(v.version, v.heldout_loss) for v in versions if v.heldout_loss is not None]
    width, height = _CURVE
    if len(points) < 2:
        return Markup('<p class="curve-empty">the curve begins with version 1</p>')
    values = [loss for _, loss in points]
    low, high = min(values), max(values)
    span = (high - low) or max(abs(high), 1e-9)
    steps = max(points[-1][0] - points[0][0], 1)
    # SVG's y grows downwards, so the highest loss has the smallest y and a falling loss falls on screen.
    spots = [
        (
            _PAD + (version - points[0][0]) / steps * (width - 2 * _PAD),
            _PAD + (high - loss) / span * (height - 2 * _PAD),
        )
        for version, loss in points
        if math.isfinite(loss)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in spots)
    label = ", ".join(f"version {version}: {loss:.4f}" for version, loss in points)
    return Markup(
        '<svg class="curve" viewBox="0 0 {w} {h}" role="img" aria-label="held-out loss, {label}">'
        '<polyline points="{path}"/>{dots}</svg>'
    ).format(w=width, h=height, label=label, path=path, dots=Markup(dots))  # noqa: S704 (numbers only)
