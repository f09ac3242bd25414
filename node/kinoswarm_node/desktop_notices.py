"""Notices on the desktop: which news is worth one (pure), and how it is shown (org.freedesktop.Notifications).

A volunteer should forget that the node runs: unless asked for results too, a notice comes only when a person is needed
or the founder speaks, never twice for the same cause in a day, and each replaces the one before on the screen.
"""

import asyncio
import contextlib
import html
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import structlog
from msgspec import Struct, structs

from kinoswarm_network.durable import write_atomic
from kinoswarm_node.desktop_bus import call
from kinoswarm_node.status_board import Listener, News
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import LocalError, MalformedBytes

Level = Literal["off", "important", "results"]

AGAIN_MS = 24 * 3_600_000
"""The same cause is told again after this."""
RESULTS_EVERY_MS = 30 * 60_000
_SERVICE = "org.freedesktop.Notifications"
_MAX_TEXT = 240
_FILE = "notices.json"
_MAX_FILE = 256 * 1024
_log = structlog.get_logger("notices")


class Notice(NamedTuple):
    title: str
    text: str


class Told(Struct, frozen=True, kw_only=True):
    """What the decision remembers."""

    at_ms_by_text: dict[str, int] = {}
    result_ms: int | None = None


def worth_telling(told: Told, news: News, level: Level, now_ms: int) -> tuple[Told, Notice | None]:
    """The notice that this news is worth, if any, and what to remember."""
    status = news.status
    candidates = [
        Notice("Kinoswarm needs you", news.reason if news.needs_person else ""),
        Notice("A newer Kinoswarm is out", status.update),
        Notice(f"From the founder of {status.swarm_name}", next(iter(status.notices), "")),
    ]
    fresh = (one for one in candidates if one.text and not _is_known(told, one, now_ms))
    notice = next(fresh, None) if level != "off" else None
    if notice is not None:
        recent = {t: at for t, at in told.at_ms_by_text.items() if 0 <= now_ms - at < AGAIN_MS}
        return structs.replace(told, at_ms_by_text={**recent, notice.text: now_ms}), notice
    return _result(told, news, level, now_ms)


def _result(told: Told, news: News, level: Level, now_ms: int) -> tuple[Told, Notice | None]:
    wanted = level == "results" and news.reason.startswith(("Accepted:", "Not accepted:"))
    since_ms = RESULTS_EVERY_MS if told.result_ms is None else now_ms - told.result_ms
    if not wanted or 0 <= since_ms < RESULTS_EVERY_MS:
        return told, None
    title = f"{news.status.swarm_name}: {news.status.accepted} segments accepted"
    return structs.replace(told, result_ms=now_ms), Notice(title, news.reason)


def _is_known(told: Told, notice: Notice, now_ms: int) -> bool:
    at_ms = told.at_ms_by_text.get(notice.text)
    return at_ms is not None and 0 <= now_ms - at_ms < AGAIN_MS


class DesktopNotices:
    """Shows what is worth it; a machine without a desktop loses nothing."""

    def __init__(
        self, home: Path, level: Level, now_ms: Callable[[], int], listener: Listener
    ) -> None:
        """`listener` hears everything as before; what was told is remembered in `home`, over restarts."""
        self._path = home / _FILE
        self._level = level
        self._now_ms = now_ms
        self._listener = listener
        self._told = _read(self._path)
        self._shown: int = 0
        self._showing: asyncio.Future[None] | None = None

    def hear(self, news: News) -> None:
        """Takes the listener's place."""
        self._listener(news)
        told, notice = worth_telling(self._told, news, self._level, self._now_ms())
        busy = self._showing is not None and not self._showing.done()
        if notice is not None and not busy:
            self._told = told
            with contextlib.suppress(LocalError):  # a disk that is full is told by another way
                write_atomic(self._path, msgspec.json.encode(told))
            loop = asyncio.get_running_loop()
            self._showing = loop.run_in_executor(None, self._show, notice)

    def _show(self, notice: Notice) -> None:
        """On a thread of its own: a desktop that hangs never stops the daemon."""
        try:
            self._shown = show(notice, self._shown)
        except Exception as error:  # noqa: BLE001  whatever a desktop does wrong, only this notice is missing
            _log.info("no notice", why=str(error) or type(error).__name__)


def _read(path: Path) -> Told:
    """A damaged file is as good as none."""
    try:
        return decode_json(path.read_bytes()[:_MAX_FILE], Told)
    except (OSError, MalformedBytes):
        return Told()


def show(notice: Notice, replaces: int = 0) -> int:
    """Have the desktop show it in place of an earlier one; its number there. Raises what `desktop_bus.call` raises."""
    text = html.escape(notice.text[:_MAX_TEXT], quote=False)  # a stranger's words are no markup
    body: tuple[object, ...] = (
        "Kinoswarm",
        replaces,
        "",
        notice.title[:_MAX_TEXT],
        text,
        [],
        {},
        -1,
    )
    path = "/org/freedesktop/Notifications"
    return int(call("SESSION", path, _SERVICE, _SERVICE, "Notify", "susssasa{sv}i", body)[0])
