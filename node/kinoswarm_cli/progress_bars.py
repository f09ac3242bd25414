"""Progress for people: a bar with rate and time left on a terminal, a line now and then in a log. Owns no work."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Report = Callable[[int, int, str], None]
"""(done, total, what): what every long-running function reports."""

_LINE_EVERY_S = 2.0


class _Rate(ProgressColumn):
    """Units a second; bytes are shown as MB/s by tasks that carry unit="MB"."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None:
            return Text("", style="progress.data.speed")
        if task.fields.get("in_bytes"):
            return Text(f"{speed / 1e6:.1f} MB/s", style="progress.data.speed")
        return Text(f"{speed:.1f}/s", style="progress.data.speed")


@contextmanager
def reporting(*, quiet: bool = False, in_bytes: bool = False) -> Iterator[Report]:
    """A Report that draws bars on a terminal's standard error, or prints a line every two seconds elsewhere."""
    if quiet:
        yield lambda done, total, what: None
    elif sys.stderr.isatty():
        with _bars(in_bytes) as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bars(in_bytes: bool) -> Iterator[Report]:
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn() if not in_bytes else TextColumn("{task.percentage:>3.0f}%"),
        _Rate(),
        TimeRemainingColumn(),
    ]
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def report(done: int, total: int, what: str) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, in_bytes=in_bytes)
            progress.update(tasks[what], completed=done, total=total)

        yield report


def _lines() -> Report:
    last: dict[str, float] = {}

    def report(done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if done < total and now - last.get(what, 0.0) < _LINE_EVERY_S:
            return
        last[what] = now
        print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)  # noqa: T201

    return report
