"""Ctrl-C and the system's wish to end a program, inside a loop, on every system. Owns the handlers, no reaction."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator

Told = Callable[[signal.Signals], None]


@contextlib.contextmanager
def listening(told: Told) -> Iterator[None]:
    """Call `told` in the running loop when SIGINT or SIGTERM comes; on Windows also for a closed window."""
    loop = asyncio.get_running_loop()
    with _by_signal_module(loop, told) if sys.platform == "win32" else _by_loop(loop, told):
        yield


@contextlib.contextmanager
def _by_loop(loop: asyncio.AbstractEventLoop, told: Told) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, told, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _by_signal_module(loop: asyncio.AbstractEventLoop, told: Told) -> Iterator[None]:
    """Windows' loops have no handlers of their own; Python's run between two steps of the loop, which they wake."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]

    def handle(number: int, frame: object) -> None:
        known = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
        loop.call_soon_threadsafe(told, known)

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
