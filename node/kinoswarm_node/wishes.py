"""What a person wants of the node, as files in its home, so that it also holds over a restart.

    paused    nothing is done while it exists; it may name an end, or say that the first "go" is still awaited
    go        the volunteer said once that this machine may train
    leave     the running node is to leave: at once, or once its segment is done and sent

Owns these files; life_cycle.py decides what follows.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from kinoswarm_network.durable import create_atomic, write_atomic
from kinoswarm_node import life_events as ev
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import LocalError, MalformedBytes

LOOK_EVERY_S = 0.5
"""How long a person waits for the graphics card at most, before the worker is ended."""

_MAX_FILE = 4096
_AT_ONCE = b"now"


class Pause(Struct, frozen=True, kw_only=True):
    """A pause that a person asked for."""

    kind: Literal["person", "not_started", "unreadable"] = "person"
    until_ms: int | None = None
    """On this machine's clock; None lasts until `kinoswarm resume`."""

    def sentence(self) -> str:
        if self.kind == "not_started":
            return "Nothing is computed before you say go: `kinoswarm resume`, or join with --go."
        if self.kind == "unreadable":
            return (
                "Paused: the file `paused` in the node's folder can't be read, as after a pause by another user; "
                "`kinoswarm resume` removes it."
            )
        if self.until_ms is not None:
            return "Paused by you for a while; `kinoswarm resume` ends the pause earlier."
        return "Paused by you; `kinoswarm resume` lets it go on."


class WishFiles:
    """The wishes of one home."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._paused, self._go, self._leave = (root / name for name in ("paused", "go", "leave"))

    def pause(self, until_ms: int | None = None) -> None:
        """Pause now and at every later start, until `resume` or `until_ms`. Raises LocalError without a node."""
        if not self._root.is_dir():
            raise LocalError(f"there is no node in {self._root}; name its folder with --home")
        write_atomic(self._paused, msgspec.json.encode(Pause(until_ms=until_ms)))

    def resume(self) -> bool:
        """Let it go on, which also is the first "go"; False when it was not paused."""
        if not self._root.is_dir():
            raise LocalError(f"there is no node in {self._root}; name its folder with --home")
        was_paused = self._paused.exists()
        create_atomic(self._go, b"")
        self._paused.unlink(missing_ok=True)
        return was_paused

    def said_go(self) -> bool:
        """Whether the volunteer ever said that this machine may train."""
        return self._go.exists()

    def await_go(self) -> None:
        """Start paused until the volunteer says go."""
        create_atomic(self._paused, msgspec.json.encode(Pause(kind="not_started")))

    def finish(self) -> None:
        """Ask the running node to leave once its segment is done and sent."""
        write_atomic(self._leave, b"")

    def leave(self) -> None:
        """Ask the running node to leave at once; its segment is kept."""
        write_atomic(self._leave, _AT_ONCE)

    def wants_to_leave(self) -> ev.FinishAsked | ev.StopAsked | None:
        """What a person asked for since the start of the node."""
        try:
            asked = self._leave.read_bytes()[:_MAX_FILE]
        except FileNotFoundError:
            return None
        except PermissionError:
            return ev.FinishAsked()  # another user asked; how soon can't be read
        except OSError:
            return None  # a disk that fails is no wish; it is looked at again
        if asked == _AT_ONCE:
            return ev.StopAsked(sentence="stopping, as you asked with `kinoswarm leave`")
        return ev.FinishAsked()

    def forget_leaving(self) -> None:
        """A new start is a new wish to take part."""
        self._leave.unlink(missing_ok=True)

    def paused(self, now_ms: int) -> Pause | None:
        """The pause in force; one whose time is over is removed. A file that can't be read counts as a plain pause."""
        try:
            raw = self._paused.read_bytes()[:_MAX_FILE]
        except FileNotFoundError:
            return None
        except OSError:
            return Pause(kind="unreadable")
        try:
            pause = decode_json(raw, Pause) if raw else Pause()
        except MalformedBytes:
            pause = Pause()
        if pause.until_ms is not None and now_ms >= pause.until_ms:
            with contextlib.suppress(OSError):  # over is over, also on a disk that can't be written
                self._paused.unlink(missing_ok=True)
            return None
        return pause


async def watch_wishes(
    wishes: WishFiles, post: Callable[[ev.Event], None], now_ms: Callable[[], int]
) -> None:
    """Tell the life cycle, for ever, when a person pauses, resumes or wants to finish."""
    before: Pause | None = None
    told: ev.FinishAsked | ev.StopAsked | None = None
    while True:
        pause = wishes.paused(now_ms())
        if pause != before:
            post(ev.PauseAsked(sentence=pause.sentence()) if pause else ev.ResumeAsked())
            before = pause
        leaving = wishes.wants_to_leave()
        if leaving is not None and leaving != told:
            told = leaving
            post(leaving)
        await asyncio.sleep(LOOK_EVERY_S)
