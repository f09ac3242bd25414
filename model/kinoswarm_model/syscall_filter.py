"""A seccomp filter: system calls that no training needs and that break out of what a worker is kept in. Owns the list.

All of them are among those that Docker's default profile denies (docs.docker.com/engine/security/seccomp), under
which CUDA runs every day. They fail with EPERM; clone3 fails with ENOSYS, so that libc falls back to clone, whose flags
can be seen.
See seccomp(2) and linux/filter.h.
"""

import ctypes
import errno
import platform
from collections.abc import Iterator, Mapping
from ctypes import POINTER, Structure, byref, c_uint8, c_uint16, c_uint32

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER_AT, _MACHINE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_X32 = 0x40000000
"""From this number on they are those of another interface on x86-64."""
_NEW_NAMESPACES = 0x7E020080
"""CLONE_NEWTIME, NS, CGROUP, UTS, IPC, USER, PID and NET."""

_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
DENIED: Mapping[str, tuple[int, int]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "umount2": (166, 39),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "pivot_root": (155, 41),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "unshare": (272, 97),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
}
"""Numbers on x86-64 and on 64-bit ARM."""


class Unavailable(Exception):
    """The kernel or this machine has no such filter, or does not let this process set one."""


class _Instruction(Structure):
    _fields_ = (
        ("code", c_uint16),
        ("if_true", c_uint8),
        ("if_false", c_uint8),
        ("value", c_uint32),
    )


class _Program(Structure):
    _fields_ = (("length", c_uint16), ("instructions", POINTER(_Instruction)))


def deny() -> None:
    """For this process and all that it starts, for ever. Raises Unavailable."""
    machine = platform.machine()
    if machine not in _MACHINES:
        raise Unavailable(f"no list of calls for {machine}")
    steps = [_Instruction(*step) for step in instructions(machine)]
    program = _Program(len(steps), (_Instruction * len(steps))(*steps))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, byref(program), 0, 0) != 0:
        raise Unavailable(errno.errorcode.get(ctypes.get_errno(), "?"))


def instructions(machine: str) -> Iterator[tuple[int, int, int, int]]:
    """The filter: another machine's calls and the denied ones fail, all others pass."""
    denied, no_such_call = (
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    )
    yield _LOAD, 0, 0, _MACHINE_AT
    yield _JUMP_EQUAL, 1, 0, _MACHINES[machine]
    yield denied
    yield _LOAD, 0, 0, _NUMBER_AT
    yield _JUMP_AT_LEAST, 0, 1, _X32
    yield denied
    for numbers in DENIED.values():
        yield _JUMP_EQUAL, 0, 1, numbers[list(_MACHINES).index(machine)]
        yield denied
    yield _JUMP_EQUAL, 0, 1, _CLONE3
    yield no_such_call
    yield _JUMP_EQUAL, 0, 3, _CLONE[machine]
    yield _LOAD, 0, 0, _FIRST_ARGUMENT_AT
    yield _JUMP_ANY_BIT, 0, 1, _NEW_NAMESPACES
    yield denied
    yield _RETURN, 0, 0, _ALLOW
