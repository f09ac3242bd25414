"""A person at a Windows machine, seen through user32 and shell32. Decides nothing; raises where they are not there."""

import ctypes
from ctypes import Structure, byref, c_int, c_uint, sizeof
from typing import Any

_FULLSCREEN = (2, 3, 4)
"""QUERY_USER_NOTIFICATION_STATE: a full-screen program, a Direct3D game, a presentation."""
_WRAP_MS = 2**32


class _LastInput(Structure):
    _fields_ = (("size", c_uint), ("at_ms", c_uint))


def idle_s() -> float:
    """Seconds since keyboard or mouse were touched (GetLastInputInfo)."""
    last = _LastInput(sizeof(_LastInput), 0)
    if not _libraries().user32.GetLastInputInfo(byref(last)):
        raise OSError("Windows does not say when it was last touched")
    now_ms = int(_libraries().kernel32.GetTickCount())
    return float((now_ms - last.at_ms) % _WRAP_MS) / 1000


def fullscreen() -> bool:
    """Whether a program fills the screen (SHQueryUserNotificationState)."""
    state = c_int()
    if _libraries().shell32.SHQueryUserNotificationState(byref(state)) != 0:
        raise OSError("Windows does not say what fills the screen")
    return state.value in _FULLSCREEN


def _libraries() -> Any:
    return ctypes.windll  # type: ignore[attr-defined]
