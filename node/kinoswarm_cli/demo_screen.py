"""What the demo shows while it runs: a live panel on a terminal, a line per change elsewhere. Owns no work."""

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text


class Screen:
    """Use as a context. `say` names the phase, `detail` its progress, `show` the swarm's status."""

    def __init__(self, quiet: bool) -> None:
        self.page = ""
        self._console = Console(stderr=True, quiet=quiet)
        self._started = time.monotonic()
        self._what = self._detail = self._last_line = ""
        self._status: dict[str, Any] | None = None
        self._live: Live | None = None

    def __enter__(self) -> "Screen":
        if self._console.is_terminal and not self._console.quiet:
            self._live = Live(
                console=self._console, get_renderable=self._panel, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, what: str) -> None:
        """A new phase."""
        self._what, self._detail, self._status = what, "", None
        self._line(what)

    def detail(self, text: str) -> None:
        """How far the phase is."""
        self._detail = text.strip()[-100:]

    def show(self, status: dict[str, Any] | None) -> None:
        """The swarm as its coordinator tells it."""
        if status is None:
            return
        self._status = status
        self._what = str(status["phase"])
        versions = ", ".join(f"v{cluster['version']}" for cluster in status["clusters"])
        self._line(f"{status['phase']} (experts: {versions})")

    def _line(self, text: str) -> None:
        if self._live is None and not self._console.quiet and text != self._last_line:
            self._last_line = text
            sys.stderr.write(f"[{self._clock()}] {text}\n")
            sys.stderr.flush()

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes}:{seconds:02d}"

    def _panel(self) -> Panel:
        parts: list[Any] = [Text(self._what, style="bold")]
        if self._detail:
            parts.append(Text(self._detail, style="dim"))
        if self._status is not None:
            parts += [_clusters(self._status), _nodes(self._status)]
        page = f" · page {self.page}" if self.page else ""
        return Panel(
            Group(*parts), title=f"kinoswarm demo · {self._clock()}{page}", title_align="left"
        )


def _clusters(status: dict[str, Any]) -> Table:
    table = Table("expert", "clips show", "version", "held-out loss", "waiting", box=None)
    for cluster in status["clusters"]:
        losses = [v["heldout_loss"] for v in cluster["versions"] if v["heldout_loss"] is not None]
        shown = " → ".join(f"{loss:.4f}" for loss in losses) or "–"
        table.add_row(
            str(cluster["cluster"]),
            cluster["label"],
            str(cluster["version"]),
            shown,
            str(cluster["pending"]),
        )
    return table


def _nodes(status: dict[str, Any]) -> Table:
    table = Table("node", "state", "expert", "step", "accepted", box=None)
    for node in sorted(status["nodes"], key=lambda node: str(node["pseudonym"])):
        cells = (node["pseudonym"], node["state"], node["cluster"], node["step"], node["accepted"])
        table.add_row(*("–" if cell is None else str(cell) for cell in cells))
    return table
