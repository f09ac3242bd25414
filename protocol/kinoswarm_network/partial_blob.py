"""One download that is not complete: data, manifest and a map of the chunks that arrived. Owns resuming it.

The map is a hint: on resuming, every chunk that it names is hashed again, so torn writes, power cuts and bad disks
cost a chunk and never a blob.
"""

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

from kinoswarm_network.durable import disk_errors, write_atomic
from kinoswarm_network.file_lock import try_lock
from kinoswarm_protocol.errors import HashMismatch, LocalError
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.manifest import BlobManifest


class DownloadHeld(LocalError):
    """Another process, or another download of this one, has the files; they may be free a moment later."""


_TRIES = 10
_BESIDE_DATA = (".chunks", ".manifest")
_SUFFIXES = (".data", *_BESIDE_DATA)


class PartialBlob:
    """Where the chunks of one blob are collected. Chunks may be written from several threads."""

    def __init__(
        self, folder: Path, blob: BlobId, manifest_raw: bytes, manifest: BlobManifest
    ) -> None:
        """Create the files or resume from them. Raises DownloadHeld when another process holds this download."""
        self.blob = blob
        self.manifest_raw = manifest_raw
        self.manifest = manifest
        self._folder = folder
        self._lock = threading.Lock()
        with disk_errors(folder, manifest.size_bytes):
            self._data = _open_locked(folder / f"{blob}.data", blob)
            self._map = _open_update(folder / f"{blob}.chunks")
            write_atomic(folder / f"{blob}.manifest", manifest_raw)
        self._have = self._verified_chunks()
        self.done_bytes = sum(manifest.chunk_size(i) for i, here in enumerate(self._have) if here)
        """Bytes of the verified chunks."""

    @property
    def missing(self) -> list[int]:
        """Indexes of the chunks that are still wanted, in order."""
        return [index for index in range(self.manifest.num_chunks) if not self._have[index]]

    def write_chunk(self, index: int, data: bytes) -> None:
        """Verify chunk `index` and keep it. Raises HashMismatch, or LocalError when the disk is full."""
        self.manifest.verify_chunk(index, data)
        with self._lock, disk_errors(self._folder, self.manifest.size_bytes - self.done_bytes):
            _write_at(self._data, index * self.manifest.chunk_bytes, data)
            _write_at(self._map, index, b"\x01")
            self.done_bytes += 0 if self._have[index] else len(data)
            self._have[index] = 1

    def write_back(self) -> None:
        """Have what was written so far go to the disk, so that sealing need not wait for all of it at the end."""
        with suppress(
            ValueError, OSError
        ):  # closed meanwhile; sealing says what is wrong with the disk
            getattr(os, "fdatasync", os.fsync)(self._data.fileno())

    def read_chunk(self, index: int) -> bytes | None:
        """A verified chunk; None when it did not arrive yet or the files are closed. Raises MalformedBytes."""
        size = self.manifest.chunk_size(index)
        with self._lock:
            if self._data.closed or not self._have[index]:
                return None
            self._data.seek(index * self.manifest.chunk_bytes)
            return self._data.read(size)

    def have(self) -> list[int]:
        """Indexes of the verified chunks, in order."""
        return [index for index, here in enumerate(self._have) if here]

    def seal(self) -> Path:
        """Sync the complete data file and return its path; raises LocalError when chunks are missing."""
        if self.missing:
            raise LocalError(
                f"blob {self.blob[:12]}… still lacks {len(self.missing)} of {self.manifest.num_chunks} chunks"
            )
        with disk_errors(self._folder, self.manifest.size_bytes):
            self._data.truncate(self.manifest.size_bytes)
            os.fsync(self._data.fileno())
        return self._folder / f"{self.blob}.data"

    def close(self) -> None:
        """Let go of the files; what arrived stays for the next time."""
        with self._lock:  # never under a write that a cancelled download left running
            self._data.close()
            self._map.close()

    def discard(self) -> None:
        """Delete the files and close them."""
        self._remove(_SUFFIXES)

    def done(self) -> None:
        """The data has its final name: close, sparing a download that begins anew under the old one right now."""
        self._remove(_BESIDE_DATA)

    def _remove(self, suffixes: Sequence[str]) -> None:
        if sys.platform == "win32":  # no open file is deleted there
            self.close()
        for suffix in suffixes:
            with suppress(PermissionError):  # Windows: another download has it open already
                (self._folder / f"{self.blob}{suffix}").unlink(missing_ok=True)
        self.close()  # the lock goes last

    @staticmethod
    def remove_files(folder: Path, blob: BlobId) -> None:
        """Delete what a download of `blob` left in `folder`."""
        for suffix in _SUFFIXES:
            (folder / f"{blob}{suffix}").unlink(missing_ok=True)

    @staticmethod
    def remove_if_idle(folder: Path, blob: BlobId) -> bool:
        """The same, unless another download holds them; whether they are gone."""
        try:
            data = _open_locked(folder / f"{blob}.data", blob)
        except DownloadHeld:
            return False
        if sys.platform == "win32":  # no open file is deleted there
            data.close()
        with closing(data):  # under the lock: nobody begins in between
            PartialBlob.remove_files(folder, blob)
        return True

    def _verified_chunks(self) -> bytearray:
        self._map.seek(0)
        marks = self._map.read(self.manifest.num_chunks)
        have = bytearray(self.manifest.num_chunks)
        for index, mark in enumerate(marks):
            have[index] = bool(mark) and self._holds(index)
        return have

    def _holds(self, index: int) -> bool:
        self._data.seek(index * self.manifest.chunk_bytes)
        try:
            self.manifest.verify_chunk(index, self._data.read(self.manifest.chunk_size(index)))
        except HashMismatch:
            return False
        return True


def _open_update(path: Path) -> BinaryIO:
    """Open for reading and writing at any place, creating the file but never truncating it; unbuffered."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)


def _open_locked(path: Path, blob: BlobId) -> BinaryIO:
    """Open and lock the very file that has this name: who held the lock before may have deleted the one opened."""
    for _ in range(_TRIES):
        file = _open_update(path)
        _lock_file(file, blob)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
    raise DownloadHeld(f"the files of blob {blob[:12]}… in {path.parent} change all the time")


def _write_at(file: BinaryIO, offset: int, data: bytes) -> None:
    file.seek(offset)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _lock_file(file: BinaryIO, blob: BlobId) -> None:
    """Keep two processes from writing one download; the lock goes with the process."""
    if not try_lock(file.fileno()):
        file.close()
        raise DownloadHeld(
            f"another process is downloading blob {blob[:12]}… into this folder; wait for it or stop it"
        )
