"""The demo's child programs: started in process groups of their own, ended together. Owns their lives only."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1
_GRACE_S = 10.0


@dataclass
class Child:
    """One running program of the demo: `name` for people, its log and its process."""

    name: str
    log: Path
    process: "subprocess.Popen[bytes]"

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def last_words(self, num_lines: int = 12) -> str:
        """The end of its log, for an error message."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-num_lines:])


def _end_with_parent() -> None:
    """A kill -9 of the demo ends its children too (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class ProcessTrees:
    """All children of the demo."""

    log_dir: Path
    environment: Mapping[str, str]
    children: list[Child] = field(default_factory=list)

    def start(self, name: str, arguments: Sequence[str]) -> Child:
        """Start `kinoswarm ARGUMENTS…` with its output in a log file."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        log = self.log_dir / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "kinoswarm_cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 (the demo has one thread when it forks)
            )
        child = Child(name, log, process)
        self.children.append(child)
        return child

    def processes(self) -> Iterator[psutil.Process]:
        """This process and all its descendants that still live."""
        own = psutil.Process()
        yield own
        yield from own.children(recursive=True)

    def end(self, children: Sequence[Child] | None = None) -> None:
        """Ask politely, wait, then kill whole groups: nothing of them is left when this returns."""
        ending = list(self.children if children is None else children)
        descendants = [d for child in ending for d in _descendants(child.process.pid)]
        for child in ending:
            if child.running:
                child.process.terminate()
        _wait(ending, _GRACE_S)
        for child in ending:
            _kill_group(child.process.pid)
            child.process.wait()
        for process in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(descendants, timeout=_GRACE_S)
        self.children = [child for child in self.children if child not in ending]


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _wait(children: Sequence[Child], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(timeout=max(0.0, deadline - time.monotonic()))


def proportional_memory(processes: Callable[[], Iterator[psutil.Process]]) -> int:
    """Bytes of memory of these processes, shared pages counted once (PSS); a process that just ended counts nothing."""
    total = 0
    for process in processes():
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return total
