"""What a worker process may use: no network, few files, a memory limit, a lower priority. Free of torch.

`confine` runs before torch is imported and before any thread starts, because the kernel wants it so. What the kernel
does not allow is left out and said: a worker without a limit beats no worker.
"""

import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from kinoswarm_model import landlock, syscall_filter

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SYSTEM_FOLDERS = (
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/opt", "/etc", "/proc", "/sys"),
    *("/nix", "/gnu", "/run/opengl-driver", "/run/current-system"),
)
"""Programs, libraries, drivers and their settings, nobody's documents."""
_WINDOWS_IDLE_FROM = 10
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38


class WorkerLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one worker; 0 is no limit."""

    offline: bool = False
    """Take away the network: what strangers' bytes could do inside a worker, they can tell nobody."""
    ram_bytes: int = 0
    vram_bytes: int = 0
    nice: int = 0
    """Lower priority on the processor, 0 to 19."""
    readable: list[str] = []
    """Folders that it may read, beside those of the system and of Python."""
    writable: list[str] = []
    """Folders that it may write; with none given it may open whatever its user may."""


def confine(limits: WorkerLimits) -> list[str]:
    """Apply all but the limit of GPU memory; returns what came of it, in words."""
    return list(_apply(limits))


def confine_gpu(limits: WorkerLimits) -> None:
    """Hold torch to a share of each card's memory: beyond it, torch raises its out-of-memory error."""
    import torch

    if not limits.vram_bytes:
        return
    for index in range(torch.cuda.device_count()):
        whole = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limits.vram_bytes / whole), index)


def _apply(limits: WorkerLimits) -> Iterator[str]:
    if limits.nice:
        yield _lower_priority(limits.nice)
    if limits.ram_bytes:
        yield _limit_ram(limits.ram_bytes)
    if limits.offline:
        yield _go_offline()
    if limits.writable:  # after the network: its namespace is set up through /proc
        yield _keep_to_folders(limits)
        yield _deny_calls()


def _lower_priority(nice: int) -> str:
    """By `nice`, or by Windows' two classes below the normal one."""
    if sys.platform == "win32":
        return _lower_windows_priority(nice)
    return f"priority lowered to {os.nice(nice)}"


def _lower_windows_priority(nice: int) -> str:
    import psutil

    name = "BELOW_NORMAL" if nice < _WINDOWS_IDLE_FROM else "IDLE"
    psutil.Process().nice(getattr(psutil, f"{name}_PRIORITY_CLASS"))
    return f"priority lowered to {name.replace('_', ' ').lower()}"


def _limit_ram(size: int) -> str:
    """Of private, writable memory; file mappings such as libraries don't count (setrlimit(2), RLIMIT_DATA)."""
    if not sys.platform.startswith("linux"):
        return "memory is not limited: this system has no such limit"
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    return f"memory limited to {size / 1024**3:.1f} GiB"


def _keep_to_folders(limits: WorkerLimits) -> str:
    """So that what strangers' bytes could do inside a worker, they can't do to its user's files and keys."""
    if not sys.platform.startswith("linux"):
        return "it may open any of your files: this system has no Landlock"
    folders = {*_SYSTEM_FOLDERS, sys.prefix, sys.base_prefix, *filter(os.path.isabs, sys.path)}
    folders.update(filter(os.path.isabs, os.environ.get("LD_LIBRARY_PATH", "").split(":")))
    try:
        landlock.restrict(
            readable=sorted({*folders, *limits.readable}),
            writable=sorted({"/dev", *limits.writable}),
            tcp=not limits.offline,
        )
    except landlock.Unavailable as error:
        return f"it may open any of your files: the kernel does not allow Landlock ({error})"
    return "opens no files but programs, what it works on and its own folder"


def _deny_calls() -> str:
    if not sys.platform.startswith("linux"):
        return "it may ask the system for anything: there is no seccomp here"
    try:
        syscall_filter.deny()
    except syscall_filter.Unavailable as error:
        return f"it may ask the kernel for anything: it allows no seccomp filter ({error})"
    return f"{len(syscall_filter.DENIED)} system calls denied"


def _go_offline() -> str:
    """An empty network namespace, by a user namespace of its own where that takes no privilege."""
    if not sys.platform.startswith("linux"):
        return "the network stays: this system has no network namespaces"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWNET) == 0:
        return "no network"
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        code = errno.errorcode.get(ctypes.get_errno(), "?")
        return f"the network stays: the kernel does not allow a namespace without it ({code})"
    _keep_ids(user, group)
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    return "no network"


def _keep_ids(user: int, group: int) -> None:
    """The same ids inside the namespace as outside."""
    own = Path("/proc/self")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        try:
            (own / name).write_text(text)
        except OSError:
            return  # the ids are then shown as "nobody"; files are still written as this user
