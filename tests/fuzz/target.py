"""What is fuzzed: a reader of foreign bytes, good inputs, and how a value that was read is written again."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kinoswarm_protocol.errors import KinoswarmError


@dataclass(frozen=True)
class Target:
    """One reader."""

    read: Callable[[bytes], Any]
    samples: Callable[[], Sequence[bytes]]
    """Good inputs, from which the changed ones are made."""
    again: Callable[[Any], bytes] | None = None
    """Bytes of a value that was read; None where nothing is ever written back."""
    max_bytes: int = 4_096


class NotTheSame(AssertionError):
    """A value that was read gives other bytes when it is written and read once more."""


def try_once(target: Target, raw: bytes) -> bool:
    """Feed one input. True when it was read, False when it was refused with one of our errors; all else is raised."""
    try:
        value = target.read(raw)
    except KinoswarmError:
        return False
    if target.again is not None:
        once = target.again(value)
        twice = target.again(target.read(once))
        if once != twice:
            raise NotTheSame(f"read {raw[:200]!r}, wrote {once[:200]!r}, then {twice[:200]!r}")
    return True


def from_file(name: str, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    """A reader of files as a reader of bytes."""

    def reading(raw: bytes) -> Any:
        path = scratch() / name
        path.write_bytes(raw)
        return read(path)

    return reading


@cache
def scratch() -> Path:
    """A folder in memory where there is one, for readers that take a path."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
