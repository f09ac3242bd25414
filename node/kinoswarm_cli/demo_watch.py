"""Watches the demo while it runs: seconds per phase and peak memory. Owns the measurements that report.json shows."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from kinoswarm_cli.demo_processes import proportional_memory

_SAMPLE_EVERY_S = 2.0


@dataclass
class Watch:
    """Seconds per phase, and the highest proportional memory seen over all processes of the demo."""

    processes: Callable[[], Iterator[psutil.Process]]
    seconds_by_phase: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    peak_process_count: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside as phase `name`; a phase that is entered again adds up."""
        started = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - started
            self.seconds_by_phase[name] = self.seconds_by_phase.get(name, 0.0) + spent

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Sample memory in a thread until the block ends."""
        thread = threading.Thread(target=self._sample, name="memory", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_EVERY_S):
            memory = proportional_memory(self.processes)
            if memory > self.peak_memory_bytes:
                self.peak_memory_bytes = memory
                self.peak_process_count = sum(1 for _ in self.processes())
