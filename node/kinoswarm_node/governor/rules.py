"""The volunteer's rules as numbers. Owns the type that the decision reads; their names and words are settings.py's."""

from typing import Literal

from msgspec import Struct

from kinoswarm_node.governor.hours import Spans

WhenActive = Literal["auto", "yes", "no"]


class Rules(Struct, frozen=True, kw_only=True):
    """What is allowed. "off" of a limit is 0."""

    when_active: WhenActive = "auto"
    """Train while a person uses the machine: auto is yes on a processor and no on a graphics card."""
    idle_ms: int = 3 * 60_000
    """How long nobody must have touched the machine."""
    on_battery: bool = False
    on_metered: bool = False
    share_gpu: bool = False
    """Train although another program uses the graphics card."""
    quiet_programs: frozenset[str] = frozenset()
    """Lower-case names of programs that have the machine for themselves."""
    max_other_cpu: float = 0.5
    """Pause while other programs use more than this share of all cores; 0 is off."""
    max_temperature_c: float = 83.0
    """Slow down above it; 0 is off."""
    share: float = 1.0
    """Share of the time that the worker may compute, 0.05 to 1."""
    min_free_ram_bytes: int = 0
    min_free_disk_bytes: int = 0
    hours: Spans = ()
    calm_ms: int = 60_000
    """How long the cause of a pause must be gone before work goes on, so that it never flaps."""
