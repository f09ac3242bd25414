"""What `kinoswarm join` shows: bars on a terminal, lines in a log, JSON for programs. Owns words and layout only."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from kinoswarm_node.node_status import NodeStatus
from kinoswarm_node.status_board import Listener, News

LINE_EVERY_S = 10.0
"""Without a terminal, progress is a line this often."""


@contextlib.contextmanager
def join_view(as_json: bool) -> Iterator[Listener]:
    """A listener for the daemon's news."""
    if as_json:
        yield _json_lines(sys.stdout.write)
    elif sys.stderr.isatty():
        with _bars() as listener:
            yield listener
    else:
        yield _lines(lambda line: print(line, file=sys.stderr, flush=True), time.monotonic)  # noqa: T201


def _json_lines(write: Callable[[str], object]) -> Listener:
    def listen(news: News) -> None:
        if news.reason:
            write(msgspec.json.encode(news.status).decode() + "\n")
            sys.stdout.flush()

    return listen


def _lines(write: Callable[[str], None], now_s: Callable[[], float]) -> Listener:
    last_s: dict[str, float] = {}

    def listen(news: News) -> None:
        if news.reason:
            write(f"{time.strftime('%H:%M:%S')} {news.reason}")
            last_s.clear()
        elif now_s() - last_s.setdefault(news.what, now_s()) >= LINE_EVERY_S:
            last_s[news.what] = now_s()
            write(f"{time.strftime('%H:%M:%S')} {describe_progress(news)}")

    return listen


def describe_progress(news: News) -> str:
    """One line: what, how far, how fast, the loss."""
    if news.in_bytes:
        return f"{news.what}: {news.done / 1e6:.1f} of {news.total / 1e6:.1f} MB"
    return f"{news.what}: step {news.done} of {news.total}{_speed_and_loss(news.status)}"


def _speed_and_loss(status: NodeStatus) -> str:
    segment = status.segment
    if segment is None:
        return ""
    speed = f", {segment.steps_per_s:.2f} steps/s" if segment.steps_per_s else ""
    return speed + (f", loss {segment.loss:.4f}" if segment.loss is not None else "")


@contextlib.contextmanager
def _bars() -> Iterator[Listener]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        shown: dict[str, TaskID] = {}

        def listen(news: News) -> None:
            if news.reason:
                for task in shown.values():
                    progress.remove_task(task)
                shown.clear()
                # a reason may quote a stranger: Text shows it as it is, never as markup
                console.print(Text.assemble((time.strftime("%H:%M:%S"), "dim"), " ", news.reason))
                return
            note = "MB" if news.in_bytes else _speed_and_loss(news.status).lstrip(", ")
            if news.what not in shown:
                shown[news.what] = progress.add_task(news.what, total=news.total, note=note)
            progress.update(shown[news.what], completed=news.done, total=news.total, note=note)

        yield listen
