"""A person's pause: a file in the home, so that it also holds over a restart. Owns the file; life_cycle.py decides."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from kinoswarm_network.durable import write_atomic
from kinoswarm_node import life_events as ev
from kinoswarm_node.home import Home
from kinoswarm_protocol.errors import LocalError

LOOK_EVERY_S = 0.5
"""How long a person waits for the graphics card at most, before the worker is ended."""


def pause(home: Home) -> None:
    """Ask the node of this home to pause, now and at every later start, until `resume`."""
    if not home.root.is_dir():
        raise LocalError(f"there is no node in {home.root}; name its folder with --home")
    write_atomic(home.pause_path, b"")


def resume(home: Home) -> bool:
    """Let it go on; False when it was not paused."""
    was_paused = home.pause_path.exists()
    home.pause_path.unlink(missing_ok=True)
    return was_paused


async def watch_pause(path: Path, post: Callable[[ev.Event], None]) -> None:
    """Tell the life cycle, for ever, when a person pauses or resumes."""
    paused = False
    while True:
        if path.exists() != paused:
            paused = not paused
            post(_event(paused))
        await asyncio.sleep(LOOK_EVERY_S)


def _event(paused: bool) -> ev.Event:
    if paused:
        return ev.PauseAsked(sentence="Paused by you; `kinoswarm resume` lets it go on.")
    return ev.ResumeAsked()
