"""Real `kinoswarm` processes for end-to-end tests: started, watched, killed, always cleaned up."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

PATIENCE_S = 240.0
SHARED_MACHINE = {
    "KINOSWARM_NODE_WHEN_ACTIVE": "yes",
    "KINOSWARM_NODE_ON_BATTERY": "true",
    "KINOSWARM_NODE_MAX_OTHER_CPU_PERCENT": "0",
    "KINOSWARM_NODE_PAGE_PORT": "0",
    "KINOSWARM_NODE_NICE": "0",
    "KINOSWARM_NODE_DESKTOP_NOTICES": "off",
    "KINOSWARM_NODE_ANNOUNCE_EVERY_S": "5",
    "KINOSWARM_NODE_KEEP_EVERY_S": "5",
}
"""Nodes of one test share a machine with each other and with other tests."""


def kinoswarm(*arguments: object, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "kinoswarm_cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if check:
        assert done.returncode == 0, f"{arguments}: {done.stderr}\n{done.stdout}"
    return done


@dataclass
class Running:
    """One long-running command."""

    process: "subprocess.Popen[bytes]"
    log: Path
    family: list[psutil.Process] = field(default_factory=list)

    def wait_for_line(self, pattern: str) -> str:
        """The first group of a pattern, once the output has it."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self.log.read_text())) is None:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        return found[1]

    def note_family(self) -> None:
        """Remember all descendants, to see later that none is left."""
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def kill_9(self) -> None:
        """Kill the service alone, as the kernel would."""
        self.note_family()
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def survivors(self) -> list[psutil.Process]:
        """Descendants that still live."""
        _, alive = psutil.wait_procs(self.family, timeout=5.0)
        return alive

    def end(self) -> int:
        """Ctrl-C; returns the exit code."""
        if self.process.poll() is None:
            self.note_family()
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=30.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class Swarm:
    """A founded swarm's processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[Running] = []
        settings = tomllib.loads((folder / "coordinator" / "settings.toml").read_text())
        self.page = f"http://127.0.0.1:{settings['http_port']}/"

    @property
    def invite(self) -> Path:
        return self.folder / "invite.txt"

    def start(self, name: str, *arguments: object) -> Running:
        log = self.folder.parent / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "kinoswarm_cli.main", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **SHARED_MACHINE},
            )
        running = Running(process, log)
        self.running.append(running)
        return running

    def serve(self) -> Running:
        coordinator = self.start("coordinator", "swarm", "serve", self.folder)
        self.wait_for(lambda status: True)
        return coordinator

    def kill_coordinator(self) -> None:
        """kill -9 of whichever runs now; its page is gone then."""
        next(
            r for r in self.running if r.process.poll() is None and "serve" in r.process.args
        ).kill_9()
        assert self.status() is None

    def join(self, name: str) -> Running:
        return self.start(
            name,
            "join",
            self.invite,
            "--yes",
            "--go",
            "--home",
            self.folder.parent / name,
            "--threads",
            1,
            "--pseudonym",
            name,
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
        )

    def status(self) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(f"{self.page}api/v1/status", timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None

    def wait_for(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status that meets the condition; fails with all logs when none does."""
        deadline = time.monotonic() + PATIENCE_S
        status = None
        while time.monotonic() < deadline:
            status = self.status()
            if status is not None and condition(status):
                return status
            time.sleep(0.3)
        logs = "\n".join(f"--- {r.log}\n{r.log.read_text()[-3000:]}" for r in self.running)
        raise AssertionError(f"waited {PATIENCE_S} s; last status {status}\n{logs}")

    def end(self) -> None:
        for running in reversed(self.running):
            if running.process.poll() is None:
                running.end()
