"""A child that must not outlive its parent asks the kernel to see to it. Owns the Linux call; elsewhere a no-op."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int | None) -> None:
    """On Linux, be killed when the parent ends; end now if it has ended already.

    `parent_pid` is the parent that started us, None when nobody did.
    """
    if parent_pid is None or not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(0)
