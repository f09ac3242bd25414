"""No child outlives its parent: the kernel is asked to kill it. Owns the platform's way of doing so."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def _find_prctl() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    return prctl


_PRCTL = _find_prctl()  # looked up once: between fork and exec as little as possible may happen


def die_with_parent() -> None:
    """Have this process killed when the thread that started it ends. Does nothing where the kernel can't (macOS).

    Runs in the child: at its start, or between fork and exec.
    """
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)


def is_orphan(expected_parent: int) -> bool:
    """Whether the parent died before `die_with_parent` took hold."""
    return os.getppid() != expected_parent
