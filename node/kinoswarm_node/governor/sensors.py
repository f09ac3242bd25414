"""The real senses of one machine, asked on a thread so that a slow one never stops the daemon. Decides nothing."""

import asyncio
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from kinoswarm_node.governor import desktop_senses as desktop
from kinoswarm_node.governor import windows_senses as windows
from kinoswarm_node.governor.gpu_sense import GpuSense, open_gpu_sense
from kinoswarm_node.governor.readings import Reading

T = TypeVar("T")

_CARDS = ("cuda", "xpu", "mps")
_BY = " by "  # one of several sources of a sense

READ_TIMEOUT_S = 5.0
ASK_AGAIN_S = 60.0
"""A sense that is not here is asked again this often: a desktop session may begin later."""


class MachineSensors:
    """Looks at this machine. `device` is where the node trains: "cpu", "cuda:0" …"""

    def __init__(
        self,
        folder: Path,
        device: str,
        programs_wanted: Callable[[], bool],
        found: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """`folder` lies on the disk to watch; with the device "auto", an NVIDIA card is taken for the one that trains,
        else the first of the devices that the worker `found`; `programs_wanted` says whether anybody reads the list of
        programs."""
        self._folder = folder
        self._device = device
        self._found = found
        self._programs_wanted = programs_wanted
        self.gpu: GpuSense | None = (
            open_gpu_sense(device) if device.startswith(("auto", "cuda")) else None
        )
        self._silent_until_s: dict[str, float] = {}
        self._load = _LoadOfOthers()
        self._last = Reading(minute_of_week=0)
        self._looking: asyncio.Task[Reading] | None = None

    async def read(self) -> Reading:
        """One look; the last one again when a sense hangs."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(asyncio.to_thread(self.look), name="look")
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                self._last = await asyncio.shield(self._looking)
        except TimeoutError:
            pass  # the thread ends when its sense answers; until then the last look counts, and no other begins
        return self._last

    def limit_power(self, watts: int) -> str:
        """Of the card that trains; see GpuSense."""
        if self.gpu is not None:
            return self.gpu.limit_power(watts)
        return "no NVIDIA card here whose power could be limited" if watts else ""

    def look(self) -> Reading:
        """All senses, one after the other."""
        family, gpu = _own_family(), self.gpu
        own = {process.pid for process in family}
        battery = self._sense("battery", psutil.sensors_battery)
        plugged_in = None if battery is None else battery.power_plugged
        return Reading(
            minute_of_week=_minute_of_week(),
            gpu=None if gpu is None else self._sense("graphics card", lambda: gpu.read(own)),
            on_card=gpu is not None or self._trains_on().startswith(_CARDS),
            idle_s=self._first("user activity", _IDLE),
            fullscreen=self._first("fullscreen", (desktop.x11_fullscreen, windows.fullscreen)),
            programs=_programs(own) if self._programs_wanted() else frozenset(),
            on_battery=None if plugged_in is None else not plugged_in,
            battery_percent=None if battery is None else float(battery.percent),
            cpu_temperature_c=self._sense("processor temperature", _cpu_temperature_c),
            other_cpu=self._load.since_last(family),
            ram_free_bytes=self._sense(
                "free memory", lambda: int(psutil.virtual_memory().available)
            ),
            disk_free_bytes=self._sense(
                "free disk", lambda: int(psutil.disk_usage(str(self._folder)).free)
            ),
            metered=self._sense("metered network", desktop.metered),
            blind=sorted(name for name in self._silent_until_s if _BY not in name),
        )

    def _trains_on(self) -> str:
        """As far as it is known; with "auto", from the worker's first start on."""
        return next(iter(self._found()), "") if self._device == "auto" else self._device

    def _first(self, name: str, sources: Sequence[Callable[[], T]]) -> T | None:
        """The first source that answers."""

        def ask() -> T | None:
            for source in sources:
                answer = self._sense(f"{name}{_BY}{source.__name__}", source)
                if answer is not None:
                    return answer
            return None

        return self._sense(name, ask)

    def _sense(self, name: str, ask: Callable[[], T | None]) -> T | None:
        """What `ask` says; a sense that is missing is left alone for a while."""
        if self._silent_until_s.get(name, 0.0) > time.monotonic():
            return None
        self._silent_until_s.pop(name, None)
        try:
            answer = ask()
        except Exception:  # noqa: BLE001  whatever a driver or a desktop does wrong, only this sense is missing
            answer = None
        if answer is None:
            self._silent_until_s[name] = time.monotonic() + ASK_AGAIN_S
        return answer


_IDLE = (
    desktop.mutter_idle_s,
    desktop.screensaver_idle_s,
    desktop.x11_idle_s,
    windows.idle_s,
    desktop.logind_idle_s,
    desktop.terminal_idle_s,
)
"""The desktop knows best, logind knows the sessions, terminals are what a container has."""


class _LoadOfOthers:
    """Share of all cores that programs other than ours used between two looks."""

    def __init__(self) -> None:
        self._before: tuple[float, float, dict[int, float]] | None = None

    def since_last(self, family: Sequence[psutil.Process]) -> float | None:
        times = psutil.cpu_times()
        busy = times.user + times.system + getattr(times, "nice", 0.0)
        whole = busy + times.idle + getattr(times, "iowait", 0.0)
        own = {process.pid: _cpu_s(process) for process in family}
        before, self._before = self._before, (busy, whole, own)
        if before is None or whole <= before[1]:
            return None
        ours = sum(spent - before[2].get(pid, 0.0) for pid, spent in own.items())
        return min(1.0, max(0.0, (busy - before[0] - ours) / (whole - before[1])))


def _cpu_s(process: psutil.Process) -> float:
    try:
        spent = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(spent.user + spent.system)


def _own_family() -> list[psutil.Process]:
    service = psutil.Process()
    return [service, *service.children(recursive=True)]


def _programs(own: Collection[int]) -> frozenset[str]:
    named = psutil.process_iter(["name"])
    return frozenset((p.info["name"] or "").lower() for p in named if p.pid not in own)


def _cpu_temperature_c() -> float | None:
    if not sys.platform.startswith("linux"):
        return None
    chips = psutil.sensors_temperatures()
    found = [
        entry.current
        for name in ("coretemp", "k10temp", "zenpower", "cpu_thermal")
        for entry in chips.get(name, [])
    ]
    return max(found, default=None)


def _minute_of_week() -> int:
    now = time.localtime()
    return now.tm_wday * 1440 + now.tm_hour * 60 + now.tm_min
