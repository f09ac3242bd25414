"""A person at this machine, seen through X11, the desktop's D-Bus services, logind and terminals. Decides nothing.

Each function asks one source and raises when it is not there; sensors.py takes the first that answers.
"""

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_ulong, c_void_p
from pathlib import Path
from typing import Any

from kinoswarm_node.desktop_bus import NotHere, call, property_of

# --- D-Bus --------------------------------------------------------------------------------------


def logind_idle_s(bus: str = "SYSTEM", now_s: Callable[[], float] = time.time) -> float:
    """Seconds since anybody of all sessions did anything, by systemd-logind's manager."""
    address = (
        "/org/freedesktop/login1",
        "org.freedesktop.login1",
        "org.freedesktop.login1.Manager",
    )
    if not property_of(bus, *address, "IdleHint"):
        return 0.0
    return max(0.0, now_s() - int(property_of(bus, *address, "IdleSinceHint")) / 1e6)


def mutter_idle_s(bus: str = "SESSION") -> float:
    """GNOME on Wayland and X11."""
    path, name = "/org/gnome/Mutter/IdleMonitor/Core", "org.gnome.Mutter.IdleMonitor"
    return int(call(bus, path, name, name, "GetIdletime")[0]) / 1000


def screensaver_idle_s(bus: str = "SESSION") -> float:
    """KDE Plasma on Wayland and X11."""
    path, name = "/org/freedesktop/ScreenSaver", "org.freedesktop.ScreenSaver"
    return int(call(bus, path, name, name, "GetSessionIdleTime")[0]) / 1000


def metered(bus: str = "SYSTEM") -> bool:
    """Whether NetworkManager holds the connection for metered (1 yes, 3 guessed yes)."""
    path, name = "/org/freedesktop/NetworkManager", "org.freedesktop.NetworkManager"
    return int(property_of(bus, path, name, name, "Metered")) in (1, 3)


# --- terminals ----------------------------------------------------------------------------------


def terminal_idle_s(
    folder: Path = Path("/dev/pts"), now_s: Callable[[], float] = time.time
) -> float:
    """Seconds since this user typed into any terminal, as `w` counts it."""
    own = [path.stat() for path in folder.iterdir() if path.name.isdecimal()]
    times = [state.st_atime for state in own if state.st_uid == os.getuid()]
    if not times:
        raise NotHere("no terminal of this user")
    return max(0.0, now_s() - max(times))


# --- X11 ----------------------------------------------------------------------------------------


class _ScreenSaverInfo(Structure):
    _fields_ = (
        ("window", c_ulong),
        ("state", c_int),
        ("kind", c_int),
        ("since", c_ulong),
        ("idle_ms", c_ulong),
        ("event_mask", c_ulong),
    )


def x11_idle_s() -> float:
    """By the X server's screen saver extension."""
    with _display() as (x11, display):
        xss = ctypes.CDLL("libXss.so.1")
        xss.XScreenSaverAllocInfo.restype = POINTER(_ScreenSaverInfo)
        xss.XScreenSaverQueryInfo.argtypes = (c_void_p, c_ulong, POINTER(_ScreenSaverInfo))
        x11.XDefaultRootWindow.restype = c_ulong
        x11.XDefaultRootWindow.argtypes = (c_void_p,)
        info = xss.XScreenSaverAllocInfo()
        try:
            if not xss.XScreenSaverQueryInfo(display, x11.XDefaultRootWindow(display), info):
                raise NotHere("the X server has no screen saver extension")
            return float(info.contents.idle_ms) / 1000
        finally:
            x11.XFree(info)


def x11_fullscreen() -> bool:
    """Whether the active window of the X display says that it fills the screen (EWMH _NET_WM_STATE)."""
    with _display() as (x11, display):
        x11.XDefaultRootWindow.restype = c_ulong
        x11.XDefaultRootWindow.argtypes = (c_void_p,)
        active = _longs(x11, display, x11.XDefaultRootWindow(display), b"_NET_ACTIVE_WINDOW")
        if not active or not active[0]:
            return False
        states = _longs(x11, display, active[0], b"_NET_WM_STATE")
        return _atom(x11, display, b"_NET_WM_STATE_FULLSCREEN") in states


@contextmanager
def _display() -> Iterator[tuple[Any, Any]]:
    if not os.environ.get("DISPLAY"):
        raise NotHere("no X display")
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = c_void_p
    x11.XOpenDisplay.argtypes = (c_char_p,)
    x11.XCloseDisplay.argtypes = (c_void_p,)
    x11.XFree.argtypes = (c_void_p,)
    display = x11.XOpenDisplay(None)
    if not display:
        raise NotHere("the X display does not answer")
    try:
        yield x11, display
    finally:
        x11.XCloseDisplay(display)


def _atom(x11: Any, display: Any, name: bytes) -> int:
    x11.XInternAtom.restype = c_ulong
    x11.XInternAtom.argtypes = (c_void_p, c_char_p, c_int)
    return int(x11.XInternAtom(display, name, 0))


def _longs(x11: Any, display: Any, window: int, name: bytes) -> list[int]:
    """A window's property as numbers, at most 64 of them."""
    kind, form, count, left, data = c_ulong(), c_int(), c_ulong(), c_ulong(), c_void_p()
    x11.XGetWindowProperty.argtypes = (
        *(c_void_p, c_ulong, c_ulong, ctypes.c_long, ctypes.c_long, c_int, c_ulong),
        *(c_void_p, c_void_p, c_void_p, c_void_p, c_void_p),
    )
    results = (byref(kind), byref(form), byref(count), byref(left), byref(data))
    atom = _atom(x11, display, name)
    if x11.XGetWindowProperty(display, window, atom, 0, 64, 0, 0, *results) or not data.value:
        return []
    try:
        return list(ctypes.cast(data, POINTER(c_ulong))[: count.value])
    finally:
        x11.XFree(data)
