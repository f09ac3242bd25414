"""Keeps backups and tidying of one folder apart: a log that was just read must find its blobs. Owns the lock's file.

The kernel lets the lock go with its process, so a kill leaves nothing behind.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def nothing_goes(path: Path) -> Iterator[None]:
    """Several may want this at once. Waits until a batch that is going now is gone."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def may_tidy(path: Path) -> Iterator[bool]:
    """Whether nobody wants everything to stay; as long as this is held nobody can."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
