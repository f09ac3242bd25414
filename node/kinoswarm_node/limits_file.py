"""HOME/limits.json: what the volunteer changed on the local page. Owns the file and which settings may be in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from kinoswarm_network.durable import write_atomic
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import MalformedBytes

LIVE = (
    "share_percent",
    "idle_minutes",
    "max_temperature_c",
    "max_other_cpu_percent",
    "when_active",
    "on_battery",
    "on_metered",
    "share_gpu",
    "hours",
)
"""What the governor reads at every look. The rest needs a new start, so the page does not offer it."""

_FILE = "limits.json"
_MAX_FILE = 64 * 1024


def read_limits(home: Path) -> dict[str, Any]:
    """The kept changes; none when the file is damaged: the next change writes it anew."""
    try:
        kept = decode_json((home / _FILE).read_bytes()[:_MAX_FILE], dict[str, Any])
    except (OSError, MalformedBytes):
        return {}
    return {name: value for name, value in kept.items() if name in LIVE}


def add_limits(home: Path, changes: Mapping[str, Any]) -> None:
    """Keep `changes` beside those of before. Raises LocalError when the disk is full."""
    write_atomic(home / _FILE, msgspec.json.encode({**read_limits(home), **changes}))
