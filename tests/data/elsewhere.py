"""An engine that shows what travels between processes, in one process."""

import pickle
import sys
from collections.abc import Iterable, Iterator

from kinoswarm_model.data.engine import Item, LocalEngine, Result, Work
from kinoswarm_model.data.errors import EngineError


class ElsewhereEngine(LocalEngine):
    """As another process would: it has nothing but pickled bytes, and loads for itself."""

    def __init__(self, last: int = sys.maxsize) -> None:
        self.taken: list[int] = []
        self._last = last

    def map(self, work: Work[Item, Result], items: Iterable[Item]) -> Iterator[Result]:
        """Breaks off behind the item of that number, of all that were asked for."""
        run = pickle.loads(pickle.dumps(work.load))()
        self.taken.append(0)
        for item in items:
            if sum(self.taken) == self._last:
                raise EngineError("broke off; run the same command again")
            self.taken[-1] += 1
            yield pickle.loads(pickle.dumps(run(pickle.loads(pickle.dumps(item)))))
