"""What a device is called and how much memory it has. Owns questions to torch and the system about devices."""

import platform

import psutil
import torch


def device_names() -> list[str]:
    """Devices that a worker can compute on, best first: each CUDA device, and always "cpu"."""
    return [*(f"cuda:{index}" for index in range(torch.cuda.device_count())), "cpu"]


def device_name(device: torch.device) -> str:
    """Name for people; on a CPU the processor's architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"


def device_memory_bytes(device: torch.device) -> int:
    """Total memory of the device; of the machine for a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)
