"""Stops, continues and kills a worker with all its children. Owns how that is done on each system.

A worker leads its own process group. Windows has none: there each process of the family is asked for, one by one.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


def suspend(pid: int) -> None:
    """Let it compute nothing until `resume`; its memory stays."""
    if sys.platform == "win32":
        _each(pid, lambda process: process.suspend())
    else:
        _signal(pid, signal.SIGSTOP)


def resume(pid: int) -> None:
    """Let it go on; one that was not suspended goes on anyway."""
    if sys.platform == "win32":
        _each(pid, lambda process: process.resume())
    else:
        _signal(pid, signal.SIGCONT)


def kill(pid: int) -> None:
    """End it at once."""
    if sys.platform == "win32":
        _each(pid, lambda process: process.kill())
    else:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _each(pid: int, do: "Callable[[psutil.Process], None]") -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        worker = psutil.Process(pid)
        for process in (*worker.children(recursive=True), worker):
            with contextlib.suppress(psutil.NoSuchProcess):
                do(process)
