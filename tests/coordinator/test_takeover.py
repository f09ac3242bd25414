"""Two processes on one real PostgreSQL: the leader is stopped, the standby takes over, the leader wakes up."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kinoswarm_coordinator.events import NodeJoined
from kinoswarm_coordinator.sql_log import SqlLog

TESTS = Path(__file__).parents[1]

_ENDED = re.compile("new leads with epoch 2|another program wrote events|failed while writing")
"""What a leader of the past says: it was stopped between two appends, or within one that the server has ended since."""


class Process:
    """One coordinator's writer."""

    def __init__(self, url: str, name: str) -> None:
        path = os.pathsep.join([str(TESTS), *sys.path])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "coordinator.two_coordinators", url, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def wait_for(self, start: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(start):
                return line
        raise AssertionError(f"ended before {start!r}: {self._process.communicate()[1]}")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> str:
        """What it said in the end."""
        return self._process.communicate(timeout=60)[1]

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.kill()


def writers(url: str) -> list[str]:
    log = SqlLog(url)
    try:
        return [event.pseudonym for event in log.read() if isinstance(event, NodeJoined)]
    finally:
        log.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_standby_takes_over_within_a_minute_and_the_old_leader_writes_nothing_more(
    postgresql_url: str, processes: list[Process], how: signal.Signals
) -> None:
    old = Process(postgresql_url, "old")
    processes.append(old)
    assert old.wait_for("leads") == "leads 1\n"
    old.wait_for("wrote 20")
    new = Process(postgresql_url, "new")
    processes.append(new)
    assert "old leads; its lease ends in" in new.wait_for("standby")
    old.send(how)
    stopped_s = time.monotonic()
    assert new.wait_for("leads") == "leads 2\n"
    new.wait_for("wrote 0")
    took_s = time.monotonic() - stopped_s
    print(f"takeover after {how.name}: {took_s:.1f} s")
    assert took_s < 60
    if how == signal.SIGSTOP:
        old.send(signal.SIGCONT)
        assert _ENDED.search(old.end())
    new.wait_for("wrote 20")
    by_turns = writers(postgresql_url)
    change = by_turns.index("new")
    assert set(by_turns[:change]) == {"old"}
    assert set(by_turns[change:]) == {"new"}
    assert len(by_turns) >= 41
