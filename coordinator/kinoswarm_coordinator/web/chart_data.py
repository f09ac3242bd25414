"""Series for charts.js as JSON. Owns their form: `x`, the kind of x (time or version), and the labelled series."""

import math

import msgspec

from kinoswarm_coordinator.queries import History
from kinoswarm_coordinator.views import ClusterView
from kinoswarm_coordinator.web.curve import NUM_HUES, measured

_LEAST_POINTS = 2


def throughput(history: History) -> str:
    """Samples in accepted training per span."""
    spans = history.throughput
    return _encode(
        "time",
        [span.at_ms / 1000 for span in spans],
        [{"label": "samples", "hue": 0, "bars": True, "values": [span.samples for span in spans]}],
    )


def presence(history: History) -> str:
    """Volunteers on-line and at work; empty before there are two looks."""
    points = history.nodes
    if len(points) < _LEAST_POINTS:
        return ""
    return _encode(
        "time",
        [point.at_ms / 1000 for point in points],
        [
            {"label": "on-line", "hue": 1, "values": [point.online for point in points]},
            {"label": "training", "hue": 3, "values": [point.training for point in points]},
        ],
    )


def loss(cluster: ClusterView) -> str:
    """Held-out loss by version."""
    points = [(v, value) for v, value in measured(cluster.versions) if math.isfinite(value)]
    values = [value for _, value in points]
    series = {"label": "held-out loss", "hue": cluster.cluster % NUM_HUES, "values": values}
    return _encode("version", [float(version) for version, _ in points], [series])


def _encode(kind: str, x: list[float], series: list[dict[str, object]]) -> str:
    return msgspec.json.encode({"kind": kind, "x": x, "series": series}).decode()
