"""Charts as inline SVG: the loss curve of an expert, the shares of the router. Owns geometry; the style has colours."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from kinoswarm_coordinator.views import ClusterView, VersionView

NUM_HUES = 6
"""Colours that experts take turns with; the style names them hue-0, hue-1, …"""

_WIDTH, _HEIGHT = 280, 84  # SVG units
_PAD = 6
_MOST_POINTS = 60  # more are not told apart on a card, and would make the page heavy
_MOST_DOTS = 12
_SHARES = (1000.0, 10)  # width and height of the bar of shares, in SVG units


def measured(versions: Sequence[VersionView]) -> list[tuple[int, float]]:
    """(version, held-out loss) where the loss was measured and is a number."""
    return [
        (v.version, v.heldout_loss)
        for v in versions
        if v.heldout_loss is not None and math.isfinite(v.heldout_loss)
    ]


def loss_curve(versions: Sequence[VersionView]) -> Markup:
    """Held-out loss over versions as an SVG with a text that says the same."""
    points = _thinned(measured(versions))
    if len(points) < 2:
        return Markup('<p class="curve-empty">The curve begins with version 1.</p>')
    spots = _spots(points)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    return Markup(
        '<svg class="curve" viewBox="0 0 {w} {h}" role="img" aria-label="{label}">'
        '<line class="seed" x1="0" x2="{w}" y1="{seed}" y2="{seed}"/>'
        '<polygon points="{line} {right},{h} {left},{h}"/><polyline points="{line}"/>{dots}</svg>'
    ).format(
        w=_WIDTH,
        h=_HEIGHT,
        seed=f"{spots[0][1]:.1f}",
        left=f"{spots[0][0]:.1f}",
        right=f"{spots[-1][0]:.1f}",
        line=line,
        label=_label(points),
        dots=_dots(spots),
    )


def share_bar(clusters: Sequence[ClusterView]) -> Markup:
    """How much of the sampling each expert does, as one bar; empty while there is no router."""
    shares = [
        (c.cluster, c.label, c.share)
        for c in clusters
        if c.share is not None and math.isfinite(c.share) and c.share >= 0
    ]
    total = sum(share for _, _, share in shares)
    if total <= 0:
        return Markup("")
    width, height = _SHARES
    parts, at = [], 0.0
    for cluster, _, share in shares:
        part = share / total * width
        parts.append(
            f'<rect class="hue-{cluster % NUM_HUES}" x="{at:.1f}" y="0" width="{max(0.0, part - 3):.1f}" '
            f'height="{height}" rx="2"/>'
        )
        at += part
    label = ", ".join(f"{name} {share:.0%}" for _, name, share in shares)
    return Markup(
        '<svg class="shares" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" '
        'aria-label="share of the routing: {label}">{parts}</svg>'
    ).format(w=f"{width:.0f}", h=height, label=label, parts=Markup("".join(parts)))  # noqa: S704 (numbers only)


def bars(values: Sequence[float]) -> Markup:
    """Bars over time, for readers without the script that draws the chart; empty for no values."""
    shown = values[-_MOST_POINTS:]
    high = max(shown, default=0)
    if high <= 0:
        return Markup("")
    step = _WIDTH / len(shown)
    parts = "".join(
        f'<rect x="{index * step:.1f}" y="{_HEIGHT * (1 - value / high):.1f}" '
        f'width="{max(0.5, step - 1):.1f}" height="{_HEIGHT * value / high:.1f}"/>'
        for index, value in enumerate(shown)
    )
    return Markup(
        '<svg class="bars" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" '
        'aria-label="from {first:g} at first to {last:g} now, {high:g} at most">{parts}</svg>'
    ).format(
        w=_WIDTH,
        h=_HEIGHT,
        first=shown[0],
        last=shown[-1],
        high=high,
        parts=Markup(parts),  # noqa: S704 (numbers only)
    )


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most _MOST_POINTS of them, evenly, with the first and the last."""
    if len(points) <= _MOST_POINTS:
        return points
    step = (len(points) - 1) / (_MOST_POINTS - 1)
    return [points[round(index * step)] for index in range(_MOST_POINTS)]


def _spots(points: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """Where the points lie. SVG's y grows downwards: the highest loss is on top, a falling loss falls on screen."""
    values = [loss for _, loss in points]
    high, span = max(values), max(max(values) - min(values), 1e-9)
    first, steps = points[0][0], max(points[-1][0] - points[0][0], 1)
    return [
        (
            _PAD + (version - first) / steps * (_WIDTH - 2 * _PAD),
            _PAD + (high - loss) / span * (_HEIGHT - 3 * _PAD),
        )
        for version, loss in points
    ]


def _dots(spots: list[tuple[float, float]]) -> Markup:
    """Every version while they are few, the newest always."""
    shown = spots if len(spots) <= _MOST_DOTS else []
    small = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in shown[:-1])
    x, y = spots[-1]
    return Markup(f'{small}<circle class="now" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')  # noqa: S704 (numbers only)


def _label(points: list[tuple[int, float]]) -> str:
    if len(points) <= _MOST_DOTS:
        return "held-out loss: " + ", ".join(f"version {v} {loss:.4f}" for v, loss in points)
    (first, start), (last, end) = points[0], points[-1]
    return f"held-out loss from {start:.4f} at version {first} to {end:.4f} at version {last}"
