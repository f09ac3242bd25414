"""Ctrl-C and SIGTERM end a long-running command in order: the work is cancelled and cleans up. Owns nothing else."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from kinoswarm_network import signals


async def run_until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or a signal comes. Raises what it raised; KeyboardInterrupt after Ctrl-C."""
    task = asyncio.ensure_future(work)
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    try:
        with signals.listening(stop):
            await task
    except asyncio.CancelledError:
        if not received:
            raise
        if signal.SIGINT in received:
            raise KeyboardInterrupt from None
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a task group; the others were only cancelled with it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
