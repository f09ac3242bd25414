"""How large a delta may be, by what was accepted lately. Owns the band; pure.

Only a delta's size is looked at, on a logarithmic scale, per square root of a step: segments differ in length, and the
way that stochastic gradients walk grows with the root of the number of steps. The band is wide: it stops scaled and
empty deltas, which a held-out loss may not show, and never an honest machine.
"""

import math
from collections.abc import Sequence
from statistics import median

LEAST = 8
"""Accepted deltas before there is a band."""

KEPT = 64
_NARROWEST = math.log(4.0)
_DEVIATIONS = 6.0
_MAD_TO_SIGMA = 1.4826


def size_of(norm: float, steps: int) -> float:
    """Norm of a delta per square root of a step."""
    return norm / math.sqrt(max(1, steps))


def outside_band(size: float, recent: Sequence[float]) -> str:
    """A sentence when a delta's size lies outside the band of `recent` sizes; empty when there is nothing to say."""
    positive = sorted(value for value in recent if value > 0)
    if len(positive) < LEAST:
        return ""
    count = len(positive)
    logs = (math.log(positive[(count - 1) // 2]), math.log(positive[count // 2]))
    middle = sum(logs) / 2  # the median of all logarithms
    off = abs(math.log(size) - middle) if size > 0 else math.inf
    if off <= _NARROWEST:  # nearly always, and then no other logarithm is asked for
        return ""
    spread = median(abs(math.log(value) - middle) for value in positive) * _MAD_TO_SIGMA
    reach = max(_NARROWEST, _DEVIATIONS * spread)
    if off <= reach:
        return ""
    usual = math.exp(middle)
    return (
        f"the delta's size is {size / usual:.3g} of the usual (allowed: {math.exp(-reach):.2g} to "
        f"{math.exp(reach):.2g}); the training did not do what the lease asked for"
    )
