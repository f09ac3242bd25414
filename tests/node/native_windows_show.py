"""Shows Kinoswarm's own code a Windows, in a real process on Linux, once a sitecustomize imports it.

Modules and names that only POSIX has do not exist for `kinoswarm_*`; the standard library and other packages keep
theirs, because on Windows they bring their own ways. Files behave as there: what is open or read-only can't be renamed,
replaced or deleted. What was asked for in vain is written to the file that NATIVE_WINDOWS_LOG names, one line each.
"""

import builtins
import contextlib
import ctypes
import os
import signal
import socket
import struct
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

LOG = os.environ["NATIVE_WINDOWS_LOG"]
ROOT = os.environ["NATIVE_WINDOWS_ROOT"]
"""Files below it behave as on Windows."""

ABSENT = {
    "modules": """
        fcntl resource pwd grp termios pty tty syslog crypt posix readline jeepney hivemind libp2p
    """,
    "os": """
        fork forkpty killpg setsid setpgid getpgid getsid getuid geteuid getgid getegid getgroups setuid setgid nice
        pread pwrite preadv pwritev fdatasync fchmod fchown chown lchown chroot mkfifo mknod statvfs uname wait3 wait4
        waitid sched_getaffinity sched_setaffinity posix_fadvise posix_fallocate sendfile getloadavg sysconf openpty
        ttyname ctermid sync O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC O_PATH WNOHANG getrandom memfd_create
        eventfd pidfd_open unshare setns
    """,
    "signal": """
        SIGKILL SIGSTOP SIGCONT SIGHUP SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE SIGQUIT SIGTSTP alarm setitimer pause
        pthread_sigmask pthread_kill sigwait siginterrupt
    """,
    "socket": "AF_UNIX SCM_RIGHTS recv_fds send_fds AF_NETLINK CMSG_LEN SO_REUSEPORT",
    "asyncio": "open_unix_connection start_unix_server",
    "psutil": "sensors_temperatures sensors_fans RLIMIT_AS RLIMIT_DATA",
}
_import = builtins.__import__


def note(what: str) -> None:
    caller = sys._getframe(2).f_globals.get("__name__", "?")
    with open(LOG, "a", encoding="utf-8") as log:
        log.write(f"{caller} {what}\n")


class WindowsModule(types.ModuleType):
    """A module as Windows has it: names of its own first, then those of the real one that exist there."""

    def __init__(self, real: types.ModuleType, own: Mapping[str, Any]) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(own)
        self.__dict__["_real"] = real
        self.__dict__["_absent"] = ABSENT.get(real.__name__, "").split()

    def __getattr__(self, name: str) -> Any:
        if name in self._absent:
            note(f"{self.__name__}.{name}")
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on Windows")
        return getattr(self._real, name)


class Locking(types.ModuleType):
    """msvcrt, as far as it locks: bytes of an open file, mandatory, for one handle."""

    LK_UNLCK, LK_NBLCK = 0, 2

    def locking(self, handle: int, how: int, size: int) -> None:
        import fcntl

        start = os.lseek(handle, 0, os.SEEK_CUR)
        writes = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        kind = fcntl.F_UNLCK if how == self.LK_UNLCK else fcntl.F_WRLCK if writes else fcntl.F_RDLCK
        wanted = struct.pack("hhqqi", kind, os.SEEK_SET, start, size, 0)
        try:
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, wanted)
        except BlockingIOError as error:
            raise PermissionError(13, "Permission denied") from error


class Loader:
    """ctypes.windll: a person touched the keyboard 7 s ago, and nothing fills the screen."""

    def __init__(self) -> None:
        self.user32 = types.SimpleNamespace(GetLastInputInfo=self.last_input)
        self.kernel32 = types.SimpleNamespace(GetTickCount=lambda: 9_000)
        self.shell32 = types.SimpleNamespace(SHQueryUserNotificationState=self.state)

    def last_input(self, found: Any) -> int:
        found._obj.at_ms = 2_000
        return 1

    def state(self, found: Any) -> int:
        found._obj.value = 5
        return 0


class Process(psutil.Process):
    """psutil's, with Windows' classes of priority."""

    def nice(self, value: Any = None) -> Any:
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(f"started with priority {value}\n")


def no_such_library(name: Any, *rest: Any, **more: Any) -> Any:
    raise OSError(f"[WinError 126] {name!r} can't be loaded")


def windows_times() -> Any:
    found = psutil.cpu_times()
    return types.SimpleNamespace(user=found.user, system=found.system, idle=found.idle)


MODULES = {
    "os": WindowsModule(os, {"name": "nt", "O_BINARY": 0}),
    "sys": WindowsModule(sys, {"platform": "win32"}),
    "signal": WindowsModule(signal, {"SIGBREAK": signal.SIGUSR2}),
    "socket": WindowsModule(socket, {}),
    "ctypes": WindowsModule(ctypes, {"CDLL": no_such_library, "windll": Loader()}),
    "psutil": WindowsModule(
        psutil,
        {
            "Process": Process,
            "cpu_times": windows_times,
            "IDLE_PRIORITY_CLASS": 64,
            "BELOW_NORMAL_PRIORITY_CLASS": 16384,
        },
    ),
}


def import_as_there(
    name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> Any:
    asker = globals.get("__spec__") if globals else None
    asks = asker.name if asker is not None else (globals or {}).get("__name__", "")
    if level or not asks.startswith("kinoswarm"):
        return _import(name, globals, locals, fromlist, level)
    if name.partition(".")[0] in ABSENT["modules"].split():
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(f"{asks} import {name}\n")
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = _import(name, globals, locals, fromlist, level)
    if name == "asyncio" and "asyncio" not in MODULES:
        MODULES["asyncio"] = WindowsModule(
            sys.modules["asyncio"], {"get_running_loop": running_loop}
        )
    return MODULES.get(name if fromlist else name.partition(".")[0], module)


def running_loop() -> Any:
    """The loop without what Windows' loops lack."""
    loop = sys.modules["asyncio"].get_running_loop()

    class Loop:
        def __getattr__(self, name: str) -> Any:
            if name in ("add_signal_handler", "remove_signal_handler", "create_unix_server"):
                note(f"loop.{name}")
                raise NotImplementedError
            return getattr(loop, name)

    return Loop()


# --- files --------------------------------------------------------------------------------------


def is_open(path: str) -> bool:
    """Whether this process has it open or mapped."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return path in found or f" {path}\n" in Path("/proc/self/maps").read_text()


def refuse(path: Any) -> None:
    if not isinstance(path, str | os.PathLike):
        return
    full = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    if not full.startswith(ROOT) or not os.path.isfile(full):
        return
    if is_open(full) or not os.stat(full).st_mode & 0o200:
        raise PermissionError(13, "Access is denied", str(path))


_replace, _rename, _unlink, _remove = os.replace, os.rename, os.unlink, os.remove
_replaced = 0


def replace(source: Any, target: Any, **more: Any) -> None:
    """Now and then somebody reads the status in this very moment."""
    global _replaced
    refuse(source)
    refuse(target)
    if str(target).endswith("status.json"):
        _replaced += 1
        if _replaced % 3 == 0:
            raise PermissionError(13, "Access is denied", str(target))
    _replace(source, target, **more)


def rename(source: Any, target: Any, **more: Any) -> None:
    refuse(source)
    if str(target).startswith(ROOT) and os.path.exists(target):
        raise FileExistsError(17, "the target is there", str(target))
    _rename(source, target, **more)


def unlink(path: Any, **more: Any) -> None:
    if "dir_fd" not in more:
        refuse(path)
    _unlink(path, **more)


os.replace, os.rename, os.unlink, os.remove = replace, rename, unlink, unlink
sys.modules["msvcrt"] = Locking("msvcrt")
builtins.__import__ = import_as_there
with open(LOG, "a", encoding="utf-8") as begun:
    begun.write(f"started {' '.join(sys.orig_argv[1:4])}\n")
