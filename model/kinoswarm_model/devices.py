"""Where a worker can compute, and what each device is able to do. Owns questions to torch and the system about devices.

ROCm devices are called "cuda" by torch; Intel's are "xpu", Apple's "mps".
"""

import platform
from typing import Literal

import psutil
import torch

from kinoswarm_protocol.errors import LocalError

PrecisionChoice = Literal["auto", "float32", "bfloat16"]
"""What a volunteer may ask matrix products to be computed in; auto is training_dtype's choice."""


def device_names() -> list[str]:
    """Devices that a worker can compute on, best first, and always "cpu"."""
    found = [f"cuda:{index}" for index in _by_memory(torch.cuda.device_count())]
    found += [f"xpu:{index}" for index in range(torch.xpu.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def named_device(name: str) -> torch.device:
    """The device of this name. Raises LocalError, saying which there are, for one that this machine lacks."""
    here = device_names()
    try:
        device = torch.device(name)
    except RuntimeError:  # no kind of device that torch knows
        device = None
    if device is None or not _is_here(device, here):
        raise LocalError(
            f"device {name!r} is not here: torch finds {', '.join(here)} on this machine. Choose one of these; if a "
            "card is missing, install its driver and the torch that fits it"
        )
    return device


def _is_here(device: torch.device, here: list[str]) -> bool:
    return (
        device.type == "cpu"
        or {device.type, f"{device.type}:{device.index or 0}"} & {*here} != set()
    )


def _by_memory(count: int) -> list[int]:
    """Cards with the most GiB first, equal ones in their order, as the governor's open_gpu_sense has it."""
    if count < 2:
        return list(range(count))
    return sorted(range(count), key=lambda index: -round(_card_bytes(index) / 1024**3))


def _card_bytes(index: int) -> int:
    return int(torch.cuda.get_device_properties(index).total_memory)


def accelerator(index: int | None = None) -> torch.device:
    """This machine's GPU, or one of several. Raises LocalError when it has none."""
    found = torch.accelerator.current_accelerator()
    if found is None:
        raise LocalError("this machine has no GPU that torch can use; sample on the CPU instead")
    return found if index is None else torch.device(found.type, index)


def device_name(device: torch.device) -> str:
    """Name for people; on a CPU the processor's architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "xpu":
        return str(torch.xpu.get_device_name(device))
    if device.type == "mps":
        return f"Apple GPU ({platform.machine()})"
    return f"CPU ({platform.machine()})"


def device_memory_bytes(device: torch.device) -> int:
    """Total memory of the device; of the machine for a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "xpu":
        return int(torch.xpu.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    return int(psutil.virtual_memory().total)


def training_dtype(device: torch.device, wanted: PrecisionChoice = "auto") -> torch.dtype:
    """What matrix products are computed in while training: `wanted`, or bfloat16 where a GPU has it in hardware.

    Never float16: its range needs loss scaling, and a segment is too short to find the scale.
    """
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bfloat16" else torch.float32
    if device.type == "cuda":
        has_it = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "xpu":
        has_it = torch.xpu.is_bf16_supported(including_emulation=False)
    else:
        has_it = False
    return torch.bfloat16 if has_it else torch.float32


def forget_peak(device: torch.device) -> None:
    """Begin to measure the peak of a device's memory; cached memory is given back first."""
    if device.type in ("cuda", "xpu"):
        torch.accelerator.empty_cache()
        torch.accelerator.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Most memory of tensors since forget_peak; 0 on devices that don't count it."""
    if device.type in ("cuda", "xpu"):
        return int(torch.accelerator.max_memory_allocated(device))
    return 0
