"""The functions of `data prepare` on Ray Data, on all cores of this machine or of a cluster. Owns the mapping; Ray's
life is ray_session.py's.

Order and contents of the results are those of the local engine. Ray Data bounds what is computed ahead by its object
store. Errors travel as values: Ray would retry, wrap and print them.
"""

import socket
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from kinoswarm_model.data.engine import Item, Result, Work
from kinoswarm_model.data.errors import EngineError
from kinoswarm_model.data.ray_machines import Machine, require_equal_machines
from kinoswarm_protocol.errors import KinoswarmError

_TASKS_PER_CPU = 16
"""At least, as far as there are items: all cores are busy until near the end."""
_TRIES = 3
"""Of a task whose process died (a codec's crash, no memory left): Ray itself would try for ever."""
_COLUMN = "carried"


@dataclass(frozen=True, slots=True)
class _Carried:
    """Keeps Arrow from taking what it holds apart."""

    value: Any


@dataclass(frozen=True, slots=True)
class _Failed:
    """What went wrong, and where."""

    text: str


@dataclass(frozen=True)
class RayEngine:
    """Maps on the Ray that this process is connected to."""

    machines: tuple[Machine, ...]
    """That can compute, at least one."""
    one_machine: bool

    def require_seen(self, files: Iterable[Path], folder: Path) -> None:
        """Raises EngineError naming the machine that lacks a file or has other packages installed."""
        if not self.one_machine:
            require_equal_machines(self.machines, files, folder)

    def map(self, work: Work[Item, Result], items: Iterable[Item]) -> Iterator[Result]:
        """Raises EngineError when a function failed anywhere, or Ray broke off."""
        from ray.exceptions import RayError, RayTaskError

        rows = [{_COLUMN: _Carried(item)} for item in items]
        if not rows:
            return
        try:
            for row in self._dataset(work, rows).iter_rows():
                carried = row[_COLUMN]
                if isinstance(carried, _Failed):
                    raise EngineError(carried.text)
                yield carried.value
        except RayTaskError:
            raise  # a bug of ours, with its traceback
        except RayError as error:
            raise EngineError(_broken_off(error)) from error

    def _dataset(self, work: Work[Item, Result], rows: list[dict[str, _Carried]]) -> Any:
        import ray.data
        from ray.util.annotations import RayDeprecationWarning

        cpus = min(work.threads, *(machine.cpus for machine in self.machines))
        at_once = sum(machine.cpus // cpus for machine in self.machines)
        size = min(max(len(rows) // (_TASKS_PER_CPU * at_once), 1), work.most_at_once)
        tasks = -(-len(rows) // size)
        with warnings.catch_warnings():
            # Ray 2.64 takes the last two arguments away and has no others for them yet: hence the extra's upper bound.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            return ray.data.from_items(rows, override_num_blocks=tasks).map(
                _Worker,
                fn_constructor_kwargs={"load": work.load, "threads": work.threads},
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(at_once, tasks)),
                num_cpus=cpus,
                max_restarts=_TRIES,
                max_task_retries=_TRIES,
            )


class _Worker(Generic[Item, Result]):
    """In a process of Ray's: loads with its first item, and does one after the other."""

    def __init__(self, load: Callable[[], Callable[[Item], Result]], threads: int) -> None:
        self._load = load
        self._threads = threads
        self._run: Callable[[Item], Result] | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._run is None:
                self._run = self._loaded()
            return {_COLUMN: _Carried(self._run(row[_COLUMN].value))}
        except (KinoswarmError, OSError, EOFError) as error:
            return {_COLUMN: _Failed(f"on {socket.gethostname()}: {error}")}

    def _loaded(self) -> Callable[[Item], Result]:
        run = self._load()
        if "torch" in sys.modules:  # decoding needs none, and importing it takes seconds
            sys.modules["torch"].set_num_threads(self._threads)
        return run


def _broken_off(error: Exception) -> str:
    said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return (
        f"Ray broke off ({said[:300]}); run the same command again, also with --engine local: "
        "what is done is kept"
    )
