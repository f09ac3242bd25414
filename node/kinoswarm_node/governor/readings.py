"""What the governor can see of a machine at one moment. Owns the types; how a value is found is sensors.py's business.

Every value may be None: "can't be seen here". A rule about something that can't be seen never pauses anybody.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct


class GpuUser(Struct, frozen=True, kw_only=True):
    """Another program on the graphics card."""

    pid: int
    name: str
    """Empty when the process can't be seen from here, as in a container."""
    memory_bytes: int
    busy: float = 0.0
    """Share of the card's time over the last second, 0 to 1."""


class GpuReading(Struct, frozen=True, kw_only=True):
    """The graphics card that this node trains on."""

    name: str
    others: Sequence[GpuUser] = ()
    temperature_c: float | None = None
    power_w: float | None = None
    memory_free_bytes: int | None = None


class Reading(Struct, frozen=True, kw_only=True):
    """One look at the machine."""

    minute_of_week: int
    """Local time: 0 is Monday 00:00, 10079 is Sunday 23:59."""
    gpu: GpuReading | None = None
    """None when it can't be seen, and on a machine that trains on its processor."""
    on_card: bool = False
    """It trains on a graphics card, seen or not: then the rules for cards apply."""
    idle_s: float | None = None
    """Seconds since a person last touched keyboard, mouse or terminal."""
    fullscreen: bool | None = None
    programs: frozenset[str] = frozenset()
    """Names of running programs in lower case, our own left out."""
    on_battery: bool | None = None
    battery_percent: float | None = None
    cpu_temperature_c: float | None = None
    other_cpu: float | None = None
    """Share of all cores that other programs used since the last look, 0 to 1."""
    ram_free_bytes: int | None = None
    disk_free_bytes: int | None = None
    metered: bool | None = None
    blind: Sequence[str] = ()
    """Senses that this machine does not offer, for `kinoswarm why`."""

    @property
    def temperature_c(self) -> float | None:
        """Of the device that trains."""
        if self.gpu is not None:
            return self.gpu.temperature_c
        return None if self.on_card else self.cpu_temperature_c


class Sensors(Protocol):
    """Looks at the machine. The real one is sensors.MachineSensors; tests script their own."""

    async def read(self) -> Reading:
        """One look. Never raises for a sense that is missing or fails: that value is None."""

    def limit_power(self, watts: int) -> str:
        """Limit the graphics card's power, and take the limit back with 0; says what became of it."""


def in_words(reading: Reading) -> dict[str, str]:
    """What is seen, by sense, for a person."""
    gpu, free = reading.gpu, reading.ram_free_bytes
    words = {
        "graphics card": gpu and f"{gpu.name}, {len(gpu.others)} other program(s) on it",
        "power draw": gpu and gpu.power_w and f"{gpu.power_w:.0f} W",
        "temperature": reading.temperature_c and f"{reading.temperature_c:.0f} °C",
        "last touched": reading.idle_s is not None and f"{reading.idle_s:.0f} s ago",
        "fullscreen": reading.fullscreen is not None and _yes(reading.fullscreen),
        "on battery": reading.on_battery is not None and _yes(reading.on_battery),
        "metered": reading.metered is not None and _yes(reading.metered),
        "others' processor use": reading.other_cpu is not None and f"{reading.other_cpu:.0%}",
        "free memory": free is not None and f"{free / 1024**3:.1f} GiB",
        "free disk": reading.disk_free_bytes and f"{reading.disk_free_bytes / 1024**3:.1f} GiB",
    }
    return {name: text for name, text in words.items() if text}


def _yes(value: bool) -> str:
    return "yes" if value else "no"
