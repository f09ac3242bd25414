"""Where the functions of `data prepare` are computed: a map over items with results in their order. Owns that seam and
its plain form, in this process one after the other.

Another engine may compute elsewhere and at once, but gives the same results: a function of `Work` is pure, and what it
gives depends on its item and the number of threads alone.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Work(Generic[Item, Result]):
    """A pure function, and how another process comes by it."""

    run: Callable[[Item], Result]
    """With what it needs loaded, in this process."""
    load: Callable[[], Callable[[Item], Result]]
    """Makes an equal `run` in another process. This, items and results can be pickled."""
    threads: int = 1
    """That torch computes with: another number may change last bits."""
    most_at_once: int = 1
    """Items that one process takes on together at most: what a kill may cost it."""


class Engine(Protocol):
    """Computes; never decides what."""

    def require_seen(self, files: Iterable[Path], folder: Path) -> None:
        """Raises EngineError unless every machine that computes sees these files, and what is written into `folder`."""
        ...

    def map(self, work: Work[Item, Result], items: Iterable[Item]) -> Iterator[Result]:
        """The result of every item, in order, as they are ready; only few are computed ahead of the reader.

        Raises what the function raises; EngineError when the engine itself breaks off.
        """
        ...


class LocalEngine:
    """In this process."""

    def require_seen(self, files: Iterable[Path], folder: Path) -> None:
        """This machine sees what it found."""

    def map(self, work: Work[Item, Result], items: Iterable[Item]) -> Iterator[Result]:
        return map(work.run, items)
