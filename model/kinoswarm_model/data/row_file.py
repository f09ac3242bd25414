"""Arrays of equal shape in one growing file. Owns reading and appending rows; what they mean is the caller's.

Read with plain reads, not a mapping: pages of a mapping count as this process's memory, so that ten thousand clips
would weigh ten times as much as a thousand. A kill leaves whole rows and perhaps a part of one, which the next opening
cuts off; so the length says how far an interrupted run came.
"""

import math
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


class RowFile(Generic[Scalar]):
    """N rows of one shape and type; N grows."""

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        self._dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape = shape
        self._row_bytes = self._dtype.itemsize * math.prod(shape)
        self._path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        weakref.finalize(self, os.close, self._handle)
        self._rows = 0
        self.truncate(os.fstat(self._handle).st_size // self._row_bytes)

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: NDArray[Scalar]) -> None:
        """Add rows, shape (M, *shape)."""
        if rows.shape[1:] != self.shape or rows.dtype != self._dtype:
            raise ValueError(
                f"rows of {rows.dtype} {rows.shape[1:]}, not {self._dtype} {self.shape}"
            )
        if not len(rows):
            return
        raw = np.ascontiguousarray(rows).data.cast("B")
        while raw:
            raw = raw[os.write(self._handle, raw) :]
        self._rows += len(rows)

    def truncate(self, rows: int) -> None:
        """Keep the first `rows` rows."""
        os.ftruncate(self._handle, rows * self._row_bytes)
        os.lseek(self._handle, 0, os.SEEK_END)
        self._rows = rows

    def sync(self) -> None:
        """What was appended survives a power cut after this."""
        os.fsync(self._handle)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[Scalar]:
        """Rows by index, shape (M, *shape). Raises EOFError when the file was cut behind our back."""
        found = np.empty((len(indices), *self.shape), dtype=self._dtype)
        for row, index in enumerate(indices):
            self._read_into(found[row : row + 1].data.cast("B"), int(index))
        return found

    def batches(self, size: int, start: int = 0) -> Iterator[NDArray[Scalar]]:
        """All rows from `start`, in order, up to `size` at a time."""
        for first in range(start, self._rows, size):
            yield self.take(range(first, min(first + size, self._rows)))

    def parts(self, size: int, start: int = 0) -> "Iterator[Rows[Scalar]]":
        """As `batches`, to be read later and perhaps by another process."""
        for first in range(start, self._rows, size):
            shape = (min(size, self._rows - first), *self.shape)
            yield Rows(self._path.absolute(), self._dtype, shape, first)

    def _read_into(self, row: memoryview, index: int) -> None:
        if os.preadv(self._handle, [row], index * self._row_bytes) != len(row):
            raise EOFError(f"row {index} of {self._rows} is not whole in {self._path}")


@dataclass(frozen=True, slots=True)
class Rows(Generic[Scalar]):
    """Some rows that follow each other, by where they lie."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    """(M, …)"""
    first: int

    def read(self) -> NDArray[Scalar]:
        """Raises FileNotFoundError, or EOFError when the file is shorter."""
        found = np.empty(self.shape, dtype=self.dtype)
        with self.path.open("rb") as file:
            file.seek(self.first * found[0].nbytes)
            if file.readinto(found.data.cast("B")) != found.nbytes:
                raise EOFError(f"rows from {self.first} on are not whole in {self.path}")
        return found
