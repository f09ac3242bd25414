"""The graphics card through NVML: who else uses it, its heat, its power. Owns the questions; decides nothing.

NVML (nvidia-ml-py) is asked lazily, so that machines without an NVIDIA driver lose nothing but this sense.
"""

import os
import time
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

import psutil

from kinoswarm_node.governor.readings import GpuReading, GpuUser


class GpuSense:
    """One card; raises whatever NVML raises, which sensors.py takes as "can't be seen".

    What a card does not offer (few offer all, least of all in virtual machines) is left out, and the rest still seen.
    """

    def __init__(self, nvml: ModuleType | Any, name: int | str) -> None:
        """`name` is NVML's number of the card, which is its place on the bus, or its UUID."""
        nvml.nvmlInit()
        self._nvml = nvml
        self._card = _handle(nvml, name)
        self._name = str(nvml.nvmlDeviceGetName(self._card))
        self._looked_us = int(time.time() * 1e6)
        self._milliwatts_before: int | None = None

    def read(self, own: Collection[int]) -> GpuReading:
        """The card now; processes in `own` are ours."""
        nvml, card, ask = self._nvml, self._card, self._optional
        return GpuReading(
            name=self._name,
            others=self._others(own),
            temperature_c=ask(
                lambda: float(nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU))
            ),
            power_w=ask(lambda: nvml.nvmlDeviceGetPowerUsage(card) / 1000),
            memory_free_bytes=ask(lambda: int(nvml.nvmlDeviceGetMemoryInfo(card).free)),
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
        nvml, card, busy = self._nvml, self._card, self._busy()
        listed = [
            *(self._optional(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(card)) or []),
            *(self._optional(lambda: nvml.nvmlDeviceGetGraphicsRunningProcesses(card)) or []),
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
    """The sense for "cuda:1", or for the card that "auto" trains on; None where no NVIDIA driver answers.

    Workers count cards as NVML does (CUDA_DEVICE_ORDER), but only those that CUDA_VISIBLE_DEVICES leaves.
    """
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        name = _named(pynvml, device, _visible(pynvml, os.environ.get("CUDA_VISIBLE_DEVICES")))
        return None if name is None else GpuSense(pynvml, name)
    except pynvml.NVMLError:
        return None


def _visible(nvml: Any, listed: str | None) -> list[int | str]:
    """The cards that CUDA sees, in its order."""
    if listed is None:
        return list(range(nvml.nvmlDeviceGetCount()))
    entries = [entry.strip() for entry in listed.split(",")]
    return [int(entry) if entry.isdecimal() else entry for entry in entries if entry]


def _named(nvml: Any, device: str, visible: list[int | str]) -> int | str | None:
    """With "auto", the first of those with the most memory, as device_names has it in the worker."""
    if device == "auto":
        return max(visible, key=lambda name: _memory_gib(nvml, name), default=None)
    _, _, index = device.partition(":")
    return visible[int(index or 0)] if int(index or 0) < len(visible) else None


def _memory_gib(nvml: Any, name: int | str) -> int:
    return round(int(nvml.nvmlDeviceGetMemoryInfo(_handle(nvml, name)).total) / 1024**3)


def _handle(nvml: Any, name: int | str) -> Any:
    if isinstance(name, int):
        return nvml.nvmlDeviceGetHandleByIndex(name)
    return nvml.nvmlDeviceGetHandleByUUID(name)


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""
