"""Landlock: which files a process may open from now on, asked of the Linux kernel. Owns the three system calls.

See landlock(7) and include/uapi/linux/landlock.h. What is not granted can't be opened, listed, made or deleted, by this
process and by all that it starts. Newer kernels also take away TCP, signals to others and abstract sockets.
"""

import ctypes
import errno
import os
import platform
from collections.abc import Iterable
from ctypes import Structure, byref, c_int32, c_uint64, sizeof

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""The same on every architecture that has them, but for alpha."""
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_FS_BITS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many kinds of access to files each version of the interface knows; later ones 16."""
_NET_FROM, _TCP = 4, 0b11
_SCOPED_FROM, _SCOPED = 6, 0b11


class Unavailable(Exception):
    """The kernel has no Landlock, or does not let this process use it."""


class _Ruleset(Structure):
    _fields_ = (("fs", c_uint64), ("net", c_uint64), ("scoped", c_uint64))


class _PathBeneath(Structure):
    _pack_ = 1
    _fields_ = (("allowed", c_uint64), ("parent", c_int32))


def restrict(readable: Iterable[str], writable: Iterable[str], tcp: bool) -> None:
    """Open nothing from now on but what lies below these; folders that are not there are left out.

    Without `tcp` no TCP connection can be made either, where the kernel knows of it. Raises Unavailable.
    """
    abi = _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    handled = (1 << _FS_BITS_BY_ABI.get(abi, 16)) - 1
    ruleset = _Ruleset(
        handled,
        _TCP if abi >= _NET_FROM and not tcp else 0,
        _SCOPED if abi >= _SCOPED_FROM else 0,
    )
    size = sizeof(c_uint64) * (3 if abi >= _SCOPED_FROM else 2 if abi >= _NET_FROM else 1)
    handle = _call(_CREATE_RULESET, byref(ruleset), size, 0)
    try:
        for path in readable:
            _grant(handle, path, _READ & handled)
        for path in writable:
            _grant(handle, path, handled)
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _call(_RESTRICT_SELF, handle, 0)
    finally:
        os.close(handle)


def _grant(ruleset: int, path: str, allowed: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            allowed &= _ON_FILES
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, byref(_PathBeneath(allowed, parent)), 0)
    finally:
        os.close(parent)


def _call(number: int, *arguments: object) -> int:
    if platform.machine() == "alpha":
        raise Unavailable("other system calls")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise Unavailable(errno.errorcode.get(ctypes.get_errno(), "?"))
    return result
