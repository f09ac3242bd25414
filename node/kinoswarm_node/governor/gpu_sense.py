"""The graphics card through NVML: who else uses it, its heat, its power. Owns the questions; decides nothing.

NVML (nvidia-ml-py) is asked lazily, so that machines without an NVIDIA driver lose nothing but this sense.
"""

import time
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

import psutil

from kinoswarm_node.governor.readings import GpuReading, GpuUser


class GpuSense:
    """One card, by its index; raises whatever NVML raises, which sensors.py takes as "can't be seen"."""

    def __init__(self, nvml: ModuleType | Any, index: int) -> None:
        nvml.nvmlInit()
        self._nvml = nvml
        self._card = nvml.nvmlDeviceGetHandleByIndex(index)
        self._name = str(nvml.nvmlDeviceGetName(self._card))
        self._looked_us = int(time.time() * 1e6)
        self._milliwatts_before: int | None = None

    def read(self, own: Collection[int]) -> GpuReading:
        """The card now; processes in `own` are ours."""
        nvml, card = self._nvml, self._card
        return GpuReading(
            name=self._name,
            others=self._others(own),
            temperature_c=float(nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)),
            power_w=self._optional(lambda: nvml.nvmlDeviceGetPowerUsage(card) / 1000),
            memory_free_bytes=int(nvml.nvmlDeviceGetMemoryInfo(card).free),
        )

    def limit_power(self, watts: int) -> str:
        """Set the card's power limit where that is permitted; 0 sets what it was before. Says what became of it."""
        nvml, card = self._nvml, self._card
        try:
            if not watts and self._milliwatts_before is None:
                return ""
            if self._milliwatts_before is None:
                self._milliwatts_before = int(nvml.nvmlDeviceGetPowerManagementLimit(card))
            milliwatts = watts * 1000 or self._milliwatts_before
            nvml.nvmlDeviceSetPowerManagementLimit(card, milliwatts)
        except nvml.NVMLError as error:
            return f"the card's power limit stays: {error} (the driver lets only root change it)"
        return f"the card's power limit is {milliwatts // 1000} W"

    def _others(self, own: Collection[int]) -> list[GpuUser]:
        """A process that can't be seen from here may be our own worker, as in a container, while one runs."""
        busy = self._busy()
        listed = [
            *self._nvml.nvmlDeviceGetComputeRunningProcesses(self._card),
            *self._nvml.nvmlDeviceGetGraphicsRunningProcesses(self._card),
        ]
        bytes_by_pid = {entry.pid: int(entry.usedGpuMemory or 0) for entry in listed}
        users = [
            GpuUser(pid=pid, name=_name(pid), memory_bytes=used, busy=busy.get(pid, 0.0))
            for pid, used in bytes_by_pid.items()
            if pid not in own
        ]
        return [user for user in users if user.name or len(own) <= 1]

    def _busy(self) -> Mapping[int, float]:
        """By process: its share of the card's time since the last look; empty where the card can't say."""
        since, self._looked_us = self._looked_us, int(time.time() * 1e6)
        samples = self._optional(
            lambda: self._nvml.nvmlDeviceGetProcessUtilization(self._card, since)
        )
        return {sample.pid: sample.smUtil / 100 for sample in samples or []}

    def _optional(self, ask: Any) -> Any:
        try:
            return ask()
        except self._nvml.NVMLError:
            return None


def open_gpu_sense(device: str) -> GpuSense | None:
    """The sense for "cuda:1"; None where no NVIDIA driver answers."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    _, _, index = device.partition(":")
    try:
        return GpuSense(pynvml, int(index or 0))
    except pynvml.NVMLError:
        return None


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""
