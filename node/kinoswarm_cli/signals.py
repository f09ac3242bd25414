"""Ctrl-C and SIGTERM end a long-running command in order: the work is cancelled and cleans up. Owns nothing else."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def run_until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or a signal comes. Raises what it raised; KeyboardInterrupt after Ctrl-C."""
    task = asyncio.ensure_future(work)
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not received:
            raise
        if signal.SIGINT in received:
            raise KeyboardInterrupt from None
    except BaseExceptionGroup as group:
        raise _first(group) from group
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a task group; the others were only cancelled with it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
