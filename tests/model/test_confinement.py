"""What a worker may use is limited by the kernel, shown by real processes; what the kernel refuses is said."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kinoswarm_model import landlock, syscall_filter
from kinoswarm_model.confinement import WorkerLimits, confine
from kinoswarm_model.supervisor import WorkerSupervisor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")

PROGRAM = """
import json, os, sys
import msgspec
from kinoswarm_model.confinement import WorkerLimits, confine
said = confine(msgspec.json.decode(sys.argv[1], type=WorkerLimits))
found = {"said": said, "nice": os.nice(0), "uid": os.getuid()}
try:
    bytearray(700 * 1024 * 1024)
    found["memory"] = "there"
except MemoryError:
    found["memory"] = "refused"
import socket
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=2).close()
    found["network"] = "there"
except OSError:
    found["network"] = "refused"
open(sys.argv[3], "w").write("still writes its user's files")
print(json.dumps(found))
"""


def run_confined(limits: WorkerLimits, port: int, out: Path, *before: str) -> dict[str, object]:
    command = [*before, sys.executable, "-c", PROGRAM, msgspec.json.encode(limits).decode()]
    done = subprocess.run([*command, str(port), str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_worker_has_no_network_little_memory_and_a_low_priority(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        limits = WorkerLimits(offline=True, ram_bytes=2**29, nice=5)
        found = run_confined(limits, port, tmp_path / "out")
        free = run_confined(WorkerLimits(), port, tmp_path / "out")
    assert (free["memory"], free["network"], free["said"]) == ("there", "there", [])
    assert found["memory"] == "refused"
    assert found["nice"] == os.nice(0) + 5
    assert found["uid"] == os.getuid()
    assert (tmp_path / "out").read_text() == "still writes its user's files"
    said = " ".join(map(str, found["said"]))  # type: ignore[call-overload]
    assert "memory limited to 0.5 GiB" in said
    assert found["network"] == ("refused" if "no network" in said else "there")


def test_the_service_hears_what_its_worker_got(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        supervisor = WorkerSupervisor(
            tmp_path / "worker.log", limits=WorkerLimits(offline=True, nice=1)
        )
        await supervisor.start()
        await supervisor.stop()
        return supervisor.confined

    confined = asyncio.run(scenario())
    assert confined[0].startswith("priority lowered to")
    assert "network" in confined[1]


LOOKER = """
import ctypes, json, os, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
def trace():
    if libc.ptrace(0, 0, 0, 0) != 0:  # PTRACE_TRACEME
        raise OSError(ctypes.get_errno())
def namespace():
    if libc.unshare(0x10000000) != 0:  # CLONE_NEWUSER
        raise OSError(ctypes.get_errno())
import msgspec
from kinoswarm_model.confinement import WorkerLimits, confine
folder = sys.argv[2]
said = confine(msgspec.json.decode(sys.argv[1], type=WorkerLimits))
def can(do):
    try:
        do()
    except OSError:
        return False
    return True
print(json.dumps({
    "said": said,
    "reads its blobs": can(lambda: open(folder + "/blobs/blob").read()),
    "writes its blobs": can(lambda: open(folder + "/blobs/more", "w")),
    "writes its work": can(lambda: open(folder + "/work/result", "w").write("done")),
    "renames its work": can(lambda: os.replace(folder + "/work/result", folder + "/work/final")),
    "reads the key": can(lambda: open(folder + "/identity.key").read()),
    "lists the home": can(lambda: os.listdir(folder)),
    "lists the user's folder": can(lambda: os.listdir(os.path.expanduser("~"))),
    "signals others": can(lambda: os.kill(os.getppid(), 0)),
    "is traced": can(trace),
    "makes a namespace": can(namespace),
    "starts a program": can(lambda: subprocess.run(["true"], check=True)),
    "starts a thread": can(lambda: [t := threading.Thread(target=int), t.start(), t.join()]),
    "imports more": can(lambda: __import__("numpy").zeros(2)),
}))
"""


def test_a_worker_opens_its_blobs_and_its_folder_and_nothing_else_of_its_user(
    tmp_path: Path,
) -> None:
    for name in ("blobs", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "blobs" / "blob").write_text("weights")
    (tmp_path / "identity.key").write_text("secret")
    limits = WorkerLimits(
        offline=True, readable=[str(tmp_path / "blobs")], writable=[str(tmp_path / "work")]
    )
    raw = msgspec.json.encode(limits).decode()
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOOKER, raw, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    *_, told, denied = found.pop("said")
    kept = told == "opens no files but programs, what it works on and its own folder"
    assert kept or "the kernel does not allow Landlock" in told
    allowed = {"reads its blobs", "writes its work", "renames its work", "imports more"}
    allowed |= {"starts a program", "starts a thread"}
    if denied.endswith("system calls denied"):
        assert not {name for name in ("is traced", "makes a namespace") if found.pop(name)}
    else:
        assert "allows no seccomp filter" in denied
        found = {name: could for name, could in found.items() if "trace" not in name}
        found.pop("makes a namespace")
    if kept:
        found.pop("signals others")  # taken away by kernels of 2025 and later alone
        assert {name for name, could in found.items() if could} == allowed
    else:
        assert allowed <= {name for name, could in found.items() if could}


def test_where_the_kernel_refuses_that_is_said_and_the_worker_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise landlock.Unavailable("ENOSYS")

    def refuse_calls() -> None:
        raise syscall_filter.Unavailable("EINVAL")

    monkeypatch.setattr(landlock, "restrict", refuse)
    monkeypatch.setattr(syscall_filter, "deny", refuse_calls)
    said = confine(WorkerLimits(writable=["/somewhere"]))
    assert said == [
        "it may open any of your files: the kernel does not allow Landlock (ENOSYS)",
        "it may ask the kernel for anything: it allows no seccomp filter (EINVAL)",
    ]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_jump_of_the_filter_lands_inside_it_and_it_ends(machine: str) -> None:
    steps = list(syscall_filter.instructions(machine))
    for place, (code, if_true, if_false, _) in enumerate(steps):
        assert place + 1 + max(if_true, if_false) <= len(steps) - (code & 0x07 != 0x06)
    assert steps[-1][0] == 0x06, "the last one returns"
