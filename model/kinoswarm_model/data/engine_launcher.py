"""Starts ViZDoom's engine so that it cannot outlive us. Owns the launcher script; Linux only, elsewhere a no-op.

The engine is a process of its own that waits for its next order for good: a killed renderer would leave one behind
each time. A parent-death signal survives exec, so a script asks for one and then becomes the engine.
"""

import os
import shlex
import sys
from pathlib import Path

_BECOME = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def engine_that_dies_with_us(engine: Path, folder: Path) -> Path:
    """The path of a program to start instead of `engine`; it is written into `folder`."""
    if not sys.platform.startswith("linux"):
        return engine
    words = [sys.executable, "-S", "-E", "-c", _BECOME, str(os.getpid()), str(engine)]
    launcher = folder / "engine"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    launcher.chmod(0o700)
    return launcher
