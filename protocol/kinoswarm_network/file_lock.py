"""Locks on open files that go with their process, on every system. Owns the calls; what a lock means is its user's."""

import os
import sys
import time

_WINDOWS_BYTE = 2**31 - 2
"""Windows locks bytes, and a locked one can't be read by others: one far behind the content keeps that readable."""
_WINDOWS_TRIES = 3
_WINDOWS_PAUSE_S = 0.05
"""There a look at a lock takes it for a moment."""


def try_lock(handle: int) -> bool:
    """Take the lock of an open file for this process; False when another has it. Closing the file lets it go."""
    if sys.platform == "win32":
        return _lock_patiently(handle)
    return _flock(handle, shared=False)


def is_locked(handle: int) -> bool:
    """Whether another process has the lock of an open file; nobody has it by asking."""
    if sys.platform == "win32":
        return not (_lock_byte(handle) and _lock_byte(handle, unlock=True))
    return not _flock(handle, shared=True)


def _flock(handle: int, shared: bool) -> bool:
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_patiently(handle: int) -> bool:
    for _ in range(_WINDOWS_TRIES):
        if _lock_byte(handle):
            return True
        time.sleep(_WINDOWS_PAUSE_S)
    return False


def _lock_byte(handle: int, unlock: bool = False) -> bool:
    import msvcrt

    place = os.lseek(handle, 0, os.SEEK_CUR)
    os.lseek(handle, _WINDOWS_BYTE, os.SEEK_SET)
    try:
        how = msvcrt.LK_UNLCK if unlock else msvcrt.LK_NBLCK  # type: ignore[attr-defined]
        msvcrt.locking(handle, how, 1)  # type: ignore[attr-defined]
    except PermissionError:
        return False
    finally:
        os.lseek(handle, place, os.SEEK_SET)
    return True
