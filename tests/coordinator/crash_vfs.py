"""SQLite on a disk that we control: every write and fsync of SQLite itself passes here first.

Wraps the default VFS of the SQLite library that Python uses (sqlite.org/vfs.html; ctypes, layout of sqlite3.h). At each
boundary `on_boundary` hears what is about to happen, and may look at two worlds: the files as they lie there now, which
is what `kill -9` leaves, and `durable`, the files as they were at their last fsync, which is the worst that a power cut
leaves.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LIBRARY = ctypes.CDLL("libsqlite3.so.0")
_OK = 0
_MAIN_OR_WAL = 0x00000100 | 0x00080000
"""SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL: the files that hold data; the shared-memory index is rebuilt from them."""

_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_OPEN = ctypes.CFUNCTYPE(
    _I, _P, _P, _P, _I, _P
)  # SQLite keeps the name's pointer: it is passed on as it is
_WRITE = ctypes.CFUNCTYPE(_I, _P, _P, _I, _L)
_TRUNCATE = ctypes.CFUNCTYPE(_I, _P, _L)
_SYNC = ctypes.CFUNCTYPE(_I, _P, _I)
_DELETE = ctypes.CFUNCTYPE(_I, _P, ctypes.c_char_p, _I)


class _Vfs(ctypes.Structure):
    """sqlite3_vfs up to xDelete; what follows is copied with it."""

    _fields_ = (
        ("version", _I),
        ("size_of_file", _I),
        ("max_path", _I),
        ("next", _P),
        ("name", ctypes.c_char_p),
        ("app_data", _P),
        ("open", _P),
        ("delete", _P),
        ("rest", _P * 16),
    )


class _Methods(ctypes.Structure):
    """sqlite3_io_methods."""

    _fields_ = (
        ("version", _I),
        ("close", _P),
        ("read", _P),
        ("write", _P),
        ("truncate", _P),
        ("sync", _P),
        ("rest", _P * 13),
    )


class _File(ctypes.Structure):
    """sqlite3_file."""

    _fields_ = (("methods", ctypes.POINTER(_Methods)),)


class CrashDisk:
    """What SQLite did to the files of one folder, and what of it is durable."""

    def __init__(self, on_boundary: Callable[[str, "CrashDisk"], None]) -> None:
        self.durable: dict[str, bytes] = {}
        self.boundaries: list[str] = []
        self._on_boundary = on_boundary
        self._path_by_file: dict[int, Path] = {}

    def reached(self, what: str) -> None:
        self.boundaries.append(what)
        self._on_boundary(what, self)

    def opened(self, file: int, path: Path) -> None:
        self._path_by_file[file] = path

    def named(self, file: int) -> Path:
        return self._path_by_file[file]

    def synced(self, path: Path) -> None:
        self.durable[path.name] = path.read_bytes()

    def killed(self) -> dict[str, bytes]:
        """The files as a killed process leaves them."""
        paths = {path for path in self._path_by_file.values() if path.exists()}
        return {path.name: path.read_bytes() for path in paths}


@contextmanager
def crash_vfs(name: str, disk: CrashDisk) -> Iterator[None]:
    """Register the VFS under `name`; open databases with `file:PATH?vfs=NAME&uri=true`."""
    _LIBRARY.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    real = _LIBRARY.sqlite3_vfs_find(None)
    vfs = _Vfs.from_buffer_copy(real.contents)
    vfs.name = name.encode()
    real_open, real_delete = _OPEN(real.contents.open), _DELETE(real.contents.delete)
    kept: list[object] = []
    patched: dict[int, _Methods] = {}

    def open_file(self: int, path: int | None, file: int, flags: int, out: int) -> int:
        result = real_open(self, path, file, flags, out)
        if result == _OK and path and flags & _MAIN_OR_WAL:
            disk.opened(file, Path(ctypes.string_at(path).decode()))
            handle = _File.from_address(file)
            address = ctypes.addressof(handle.methods.contents)
            if address not in patched:
                patched[address] = _watched(handle.methods.contents, disk, kept)
            handle.methods = ctypes.pointer(patched[address])
        return int(result)

    def delete(self: int, path: bytes, sync_folder: int) -> int:
        gone = Path(path.decode())
        disk.reached(f"delete {gone.suffix}")
        result = real_delete(self, path, sync_folder)
        disk.durable.pop(gone.name, None)
        return int(result)

    opened, deleted = _OPEN(open_file), _DELETE(delete)
    kept += [opened, deleted, vfs]
    vfs.open = ctypes.cast(opened, _P).value
    vfs.delete = ctypes.cast(deleted, _P).value
    assert _LIBRARY.sqlite3_vfs_register(ctypes.byref(vfs), 0) == _OK
    try:
        yield
    finally:
        _LIBRARY.sqlite3_vfs_unregister(ctypes.byref(vfs))


def _watched(real: _Methods, disk: CrashDisk, kept: list[object]) -> _Methods:
    methods = _Methods.from_buffer_copy(real)
    real_write, real_truncate = _WRITE(real.write), _TRUNCATE(real.truncate)
    real_sync = _SYNC(real.sync)

    def write(file: int, data: int, size: int, at: int) -> int:
        disk.reached(f"write {disk.named(file).suffix}")
        return int(real_write(file, data, size, at))

    def truncate(file: int, size: int) -> int:
        disk.reached(f"truncate {disk.named(file).suffix}")
        return int(real_truncate(file, size))

    def sync(file: int, flags: int) -> int:
        disk.reached(f"fsync {disk.named(file).suffix}")
        result = int(real_sync(file, flags))
        disk.synced(disk.named(file))
        return result

    wrapped = (_WRITE(write), _TRUNCATE(truncate), _SYNC(sync))
    methods.write, methods.truncate, methods.sync = (
        ctypes.cast(function, _P).value for function in wrapped
    )
    kept += [*wrapped, methods]
    return methods
