"""Words for people: times, sizes, shares. Owns how a figure reads on the page; pure."""

import math
from datetime import UTC, datetime

from kinoswarm_coordinator.views import VersionView
from kinoswarm_coordinator.web.curve import measured


def ago(then_ms: int, now_ms: int) -> str:
    """How long ago, in words. live.js says the same."""
    if not then_ms:
        return "not lately"
    seconds = max(0, now_ms - then_ms) // 1000
    if seconds < 5:
        return "just now"
    for limit, divisor, unit in ((60, 1, "s"), (3_600, 60, "min"), (86_400, 3_600, "h")):
        if seconds < limit:
            return f"{seconds // divisor} {unit} ago"
    return f"{seconds // 86_400} d ago"


def iso_time(at_ms: int) -> str:
    """For machines: 2026-01-31T12:00:00Z, or nothing for a time no calendar holds."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return ""


def size_in_words(size_bytes: float) -> str:
    """1.4 MB"""
    return _scaled(size_bytes, "B")


def flops_in_words(flops: float) -> str:
    """2.1 PFLOP"""
    return _scaled(flops, "FLOP")


def _scaled(value: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G", "T", "P"):
        if value < 999.95:
            return f"{value:.1f} {prefix}{unit}" if prefix else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:,.1f} E{unit}"


def grouped(number: int) -> str:
    """1 284 992, with spaces that do not break."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def percent(share: float | None) -> str:
    """34%"""
    return "–" if share is None or not math.isfinite(share) else f"{share:.0%}"


def upto(versions: list[VersionView], version: int) -> list[VersionView]:
    """The versions from the seed to this one."""
    return [found for found in versions if found.version <= version]


def since_seed(versions: list[VersionView]) -> str:
    """How the held-out loss moved since version 0: −12.5%; empty before there are two measurements."""
    points = measured(versions)
    if len(points) < 2 or points[0][1] <= 0:
        return ""
    change = points[-1][1] / points[0][1] - 1
    return f"{change:+.1%}".replace("-", "\N{MINUS SIGN}")
