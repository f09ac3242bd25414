"""What the local page shows and changes, from the running node. Owns the answers as plain data, no HTTP."""

import time
from pathlib import Path
from typing import Any

import msgspec

from kinoswarm_node.context import NodeContext
from kinoswarm_node.identity_backup import seal_key
from kinoswarm_node.limits_file import LIVE
from kinoswarm_node.own_samples import samples
from kinoswarm_node.settings import NodeSettings
from kinoswarm_node.why import explain
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import LocalError, MalformedBytes

HISTORY_SHOWN = 100
LOG_SHOWN = 100
_LOG_TAIL_BYTES = 64 * 1024
_MAX_PAUSE_MINUTES = 7 * 24 * 60.0


class PageSource:
    """Answers for one node."""

    def __init__(self, node: NodeContext) -> None:
        self._node = node

    def now(self) -> dict[str, Any]:
        """Status, why, limits."""
        node = self._node
        status, now_ms = node.board.status, node.now_ms()
        history = list(node.folder.history())
        why = explain(status, True, history, node.live.now, now_ms)
        return {
            "status": msgspec.to_builtins(status),
            "why": msgspec.to_builtins(why),
            "limits": {name: getattr(node.live.now, name) for name in LIVE},
            "words": {name: NodeSettings.model_fields[name].description for name in LIVE},
            "paused": node.wishes.paused(now_ms) is not None,
        }

    def loss(self) -> list[tuple[int, float]]:
        """(step, loss) of the segment in work."""
        return self._node.board.losses()

    def history(self) -> list[dict[str, Any]]:
        """The newest segments first."""
        lines = list(self._node.folder.history())[-HISTORY_SHOWN:]
        return [msgspec.to_builtins(line) for line in reversed(lines)]

    def log(self) -> list[str]:
        """The newest lines of the node's log first, as time and sentence."""
        path = self._node.settings.home / "node.log"
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - _LOG_TAIL_BYTES))
                lines = file.read().splitlines()[-LOG_SHOWN:]
        except FileNotFoundError:
            return []
        return [text for line in reversed(lines) if (text := _in_words(line))]

    def samples(self) -> dict[str, Any]:
        """Clips of the experts that this node trains, newest first, and why there are no more of them."""
        return {
            "clips": [msgspec.to_builtins(one) for one in samples(self._node.folder)],
            "problem": self._node.no_samples,
        }

    def sample(self, name: str) -> Path | None:
        """A clip's file; None for any name that the list lacks."""
        if name not in {one.file for one in samples(self._node.folder)}:
            return None
        path = self._node.folder.root / "samples" / name
        return path if path.is_file() else None

    def pause(self, minutes: float | None) -> None:
        """Pause, for so long or until told otherwise. Raises LocalError for a length that makes no sense."""
        if minutes is not None and not 0 < minutes <= _MAX_PAUSE_MINUTES:
            raise LocalError(
                f"a pause lasts up to {_MAX_PAUSE_MINUTES:.0f} minutes, not {minutes:g}"
            )
        until_ms = None if minutes is None else int(time.time() * 1000 + minutes * 60_000)
        self._node.wishes.pause(until_ms)

    def resume(self) -> None:
        self._node.wishes.resume()

    def change_limits(self, changes: dict[str, Any]) -> None:
        """Raises LocalError naming the setting that can't be so."""
        self._node.live.change(changes)

    def identity(self, passphrase: str) -> str:
        """The node's key, readable with the passphrase only. Raises LocalError for a short one."""
        return seal_key(self._node.key, passphrase)


def _in_words(line: bytes) -> str:
    try:
        found = decode_json(line, dict[str, Any])
    except MalformedBytes:
        return ""
    return f"{str(found.get('timestamp', ''))[:19]} {found.get('event', '')}".strip()
