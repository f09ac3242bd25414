"""The governor's decision: may this node compute now, how much, and why. Pure: no clock, no sensor, no process.

A cause pauses at once. Work goes on when every cause has been gone for its calm time, so a program that flickers, a
door of a train compartment with a socket that works now and then, or a load that comes and goes never makes it flap.
Heat does not pause at first: it slows the worker down step by step, and pauses only what is far too hot.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from msgspec import Struct, structs

from kinoswarm_node.governor.hours import MINUTES_PER_DAY, is_open, minutes_until_open
from kinoswarm_node.governor.readings import GpuUser, Reading
from kinoswarm_node.governor.rules import Rules

Allowance = Literal["run", "throttle", "pause"]

GPU_USER_BUSY = 0.05
GPU_USER_BYTES = 400 * 1024**2
"""Another program counts as using the card when it computes or holds more than a desktop's windows do."""

DESKTOP_PROGRAMS = frozenset(
    [
        "xorg",
        "xwayland",
        "gnome-shell",
        "kwin_x11",
        "kwin_wayland",
        "plasmashell",
        "sway",
        "hyprland",
    ]
)
DESKTOP_BUSY = 0.3
"""What draws the desktop always holds memory: it counts only while it draws a lot, as with a video or a game inside."""

CPU_SURE_MS = 8_000
"""Other programs' load must last this long: opening a page is no reason to end the worker."""

HEAT_STEP_MS = 10_000
HEAT_STEP = 0.75
HEAT_LEAST_SHARE = 0.1
HEAT_MARGIN_C = 5.0
"""Above the ceiling the share falls by a quarter every ten seconds; below ceiling - margin it rises again; two margins
above the ceiling the worker is ended."""


_RULES = {
    "battery": "on_battery",
    "hours": "hours",
    "fullscreen": "share_gpu",
    "program": "quiet_programs",
    "active": "idle_minutes",
    "gpu": "share_gpu",
    "cpu": "max_other_cpu_percent",
    "heat": "max_temperature_c",
    "metered": "on_metered",
    "disk": "keep_free_gib",
    "ram": "keep_free_ram_gib",
}
"""By the name of a cause: the setting that makes it one."""


class GovernorState(Struct, frozen=True, kw_only=True):
    """What the decision remembers between looks."""

    last_seen_ms: Mapping[str, int] = {}
    """By cause: when it was last seen; causes that are long gone are left out."""
    busy_since_ms: int | None = None
    """Since when other programs load the processor."""
    cool_share: float = 1.0
    """What heat leaves of the share."""
    heat_changed_ms: int | None = None


class Decision(NamedTuple):
    """What is allowed now. `share` is the part of the time that the worker may compute; 0 with a pause."""

    state: GovernorState
    allowance: Allowance
    share: float
    reason: str
    rule: str = ""
    """The setting behind a pause, for a person who wants it otherwise."""


class Cause(NamedTuple):
    """Why to pause. `calm` is false where the cause's end needs no extra time, as with the idle minutes themselves."""

    name: str
    sentence: str
    calm: bool = True


def decide(state: GovernorState, reading: Reading, rules: Rules, now_ms: int) -> Decision:
    """What is allowed from `now_ms` (a monotonic clock) until the next look."""
    state = _with_load(state, reading, rules, now_ms)
    state = _with_heat(state, reading, rules, now_ms)
    causes = list(_causes(state, reading, rules, now_ms))
    seen = _seen(state, causes, rules, now_ms)
    state = structs.replace(state, last_seen_ms=seen)
    if causes:
        return Decision(state, "pause", 0.0, causes[0].sentence, _RULES[causes[0].name])
    if seen:
        return Decision(state, "pause", 0.0, _calming(seen, rules, now_ms), "calm_s")
    share = max(0.05, min(rules.share, state.cool_share))
    if share < 1.0:
        return Decision(state, "throttle", share, _throttled(share, state, reading, rules))
    return Decision(state, "run", 1.0, "Nothing stands in the way.")


# --- causes, the most telling first -------------------------------------------------------------


def _causes(state: GovernorState, reading: Reading, rules: Rules, now_ms: int) -> Iterator[Cause]:
    yield from _power_and_hours(reading, rules)
    yield from _people(reading, rules)
    yield from _other_programs(state, reading, rules, now_ms)
    yield from _resources(reading, rules)


def _power_and_hours(reading: Reading, rules: Rules) -> Iterator[Cause]:
    if reading.on_battery and not rules.on_battery:
        left = "" if reading.battery_percent is None else f" ({reading.battery_percent:.0f} %)"
        yield Cause("battery", f"Paused: the machine runs on its battery{left}.")
    if not is_open(rules.hours, reading.minute_of_week):
        minutes = minutes_until_open(rules.hours, reading.minute_of_week)
        opens = _time_of_day(reading.minute_of_week + minutes)
        yield Cause("hours", f"Paused: outside the hours you set; it goes on at {opens}.", False)


def _people(reading: Reading, rules: Rules) -> Iterator[Cause]:
    on_card = reading.on_card or reading.gpu is not None
    if reading.fullscreen and on_card and not rules.share_gpu:
        yield Cause("fullscreen", "Paused: a program fills the screen.")
    quiet = sorted(rules.quiet_programs & reading.programs)
    if quiet:
        yield Cause("program", f"Paused: {quiet[0]} runs, and you want quiet for it.")
    allowed = rules.when_active == "yes" or (rules.when_active == "auto" and not on_card)
    if not allowed and reading.idle_s is not None and reading.idle_s * 1000 < rules.idle_ms:
        wait = _duration(rules.idle_ms - int(reading.idle_s * 1000))
        yield Cause(
            "active",
            f"Paused: you use this machine; it goes on in {wait} if nobody touches it "
            f"({rules.idle_ms / 60_000:g} idle minutes).",
            calm=False,
        )


def _other_programs(
    state: GovernorState, reading: Reading, rules: Rules, now_ms: int
) -> Iterator[Cause]:
    user = None if rules.share_gpu else gpu_user(reading)
    if user is not None:
        name = user.name or "another program"
        held = f"{user.memory_bytes / 1024**3:.1f} GiB of its memory"
        yield Cause("gpu", f"Paused: {name} uses the graphics card ({held}).")
    if state.busy_since_ms is not None and now_ms - state.busy_since_ms >= CPU_SURE_MS:
        used = f"{reading.other_cpu or 0.0:.0%}"
        yield Cause("cpu", f"Paused: other programs use {used} of the processor.")


def _resources(reading: Reading, rules: Rules) -> Iterator[Cause]:
    temperature = reading.temperature_c
    limit = rules.max_temperature_c
    if temperature is not None and limit and temperature > limit + 2 * HEAT_MARGIN_C:
        yield Cause(
            "heat", f"Paused: {temperature:.0f} °C, far above your ceiling of {limit:.0f} °C."
        )
    if reading.metered and not rules.on_metered:
        yield Cause("metered", "Paused: this network connection is metered.")
    free = reading.disk_free_bytes
    if free is not None and free < rules.min_free_disk_bytes:
        wanted = f"{rules.min_free_disk_bytes / 1024**3:.1f} GiB"
        yield Cause(
            "disk", f"Paused: {free / 1024**3:.1f} GiB of disk are free, {wanted} must stay free."
        )
    free = reading.ram_free_bytes
    if free is not None and free < rules.min_free_ram_bytes:
        wanted = f"{rules.min_free_ram_bytes / 1024**3:.1f} GiB"
        yield Cause(
            "ram", f"Paused: {free / 1024**3:.1f} GiB of memory are free, {wanted} must stay free."
        )


def gpu_user(reading: Reading) -> GpuUser | None:
    """The program that uses the graphics card most, if one counts."""
    others = [] if reading.gpu is None else [user for user in reading.gpu.others if _counts(user)]
    return max(others, key=lambda user: (user.busy, user.memory_bytes), default=None)


def _counts(user: GpuUser) -> bool:
    if user.name.lower() in DESKTOP_PROGRAMS:
        return user.busy >= DESKTOP_BUSY
    return user.busy >= GPU_USER_BUSY or user.memory_bytes >= GPU_USER_BYTES


# --- what lasts ---------------------------------------------------------------------------------


def _seen(state: GovernorState, causes: list[Cause], rules: Rules, now_ms: int) -> dict[str, int]:
    """When each cause was last seen; a clock that went back counts as now."""
    lasting = {
        name: min(seen_ms, now_ms)
        for name, seen_ms in state.last_seen_ms.items()
        if min(seen_ms, now_ms) + rules.calm_ms > now_ms
    }
    return lasting | {cause.name: now_ms for cause in causes if cause.calm}


def _calming(seen: Mapping[str, int], rules: Rules, now_ms: int) -> str:
    left = max(seen.values()) + rules.calm_ms - now_ms
    return f"Paused: the cause is gone; going on in {_duration(left)} if it stays so."


def _with_load(state: GovernorState, reading: Reading, rules: Rules, now_ms: int) -> GovernorState:
    """Once paused for load, two thirds of the limit keep it paused."""
    limit = rules.max_other_cpu * (2 / 3 if "cpu" in state.last_seen_ms else 1.0)
    busy = bool(limit) and reading.other_cpu is not None and reading.other_cpu > limit
    since = state.busy_since_ms if state.busy_since_ms is not None else now_ms
    return structs.replace(state, busy_since_ms=min(since, now_ms) if busy else None)


def _with_heat(state: GovernorState, reading: Reading, rules: Rules, now_ms: int) -> GovernorState:
    temperature, limit = reading.temperature_c, rules.max_temperature_c
    if temperature is None or not limit:
        return structs.replace(state, cool_share=1.0, heat_changed_ms=None)
    changed = state.heat_changed_ms
    if changed is not None and 0 <= now_ms - changed < HEAT_STEP_MS:
        return state
    if temperature > limit:
        share = max(HEAT_LEAST_SHARE, state.cool_share * HEAT_STEP)
    elif temperature < limit - HEAT_MARGIN_C:
        share = min(1.0, state.cool_share / HEAT_STEP)
    else:
        share = state.cool_share
    if share == state.cool_share:
        return state
    return structs.replace(state, cool_share=share, heat_changed_ms=now_ms)


# --- words --------------------------------------------------------------------------------------


def _throttled(share: float, state: GovernorState, reading: Reading, rules: Rules) -> str:
    if state.cool_share < rules.share:
        return (
            f"Slowed to {share:.0%}: {reading.temperature_c or 0.0:.0f} °C, your ceiling is "
            f"{rules.max_temperature_c:.0f} °C."
        )
    return f"Slowed to {share:.0%}, as you set."


def _duration(ms: int) -> str:
    seconds = max(1, -(-ms // 1000))
    return f"{seconds} s" if seconds < 120 else f"{-(-seconds // 60)} min"


def _time_of_day(minute: int) -> str:
    return f"{minute % MINUTES_PER_DAY // 60:02}:{minute % 60:02}"
