"""Files that are whole or absent, whatever happens to the power. Owns atomic writing and the words for a full disk."""

import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kinoswarm_protocol.errors import LocalError

_WINDOWS_PAUSES_S = (0.01, 0.05, 0.1, 0.2)
_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def disk_errors(path: Path, needed_bytes: int) -> Iterator[None]:
    """Turn a full, forbidden or read-only disk under `path` into a LocalError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise LocalError(
                f"the disk is full: {needed_bytes} bytes were needed at {path}; free some space or choose "
                "another folder"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise LocalError(
                f"cannot write {path}: {error.strerror}; check its owner and permissions"
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut; Windows does so by itself and cannot open folders."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write `path` so that readers see the old bytes or all of the new ones, even across a power cut.

    Raises LocalError when the disk is full or may not be written.
    """
    with disk_errors(path, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _write_beside(path, data, mode)
        try:
            _replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def create_atomic(path: Path, data: bytes, mode: int = 0o600) -> bool:
    """Like `write_atomic`, but never replaces a file: False when `path` exists already, whoever made it."""
    with disk_errors(path, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _write_beside(path, data, mode)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
        return True


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same bytes as `source`, replacing what lay there; a link where the disk allows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def remove_unnamed(folder: Path, named: set[str]) -> None:
    """Remove all files under `folder` but `named` (paths relative to it), and folders that are empty then."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in named:
            path.unlink()


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise LocalError before a large file is begun that cannot fit under `folder`."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise LocalError(
            f"the disk is full: {needed_bytes} bytes are needed in {folder}, {free} are free; "
            "free some space or choose another folder"
        )


def _replace(temporary: Path, path: Path) -> None:
    """A rename over `path`; Windows refuses it while somebody, such as `kinoswarm status`, reads the old file."""
    pauses_s = _WINDOWS_PAUSES_S if sys.platform == "win32" else ()
    for pause_s in pauses_s:
        try:
            temporary.replace(path)
        except PermissionError:
            time.sleep(pause_s)
        else:
            return
    temporary.replace(path)


def _write_beside(path: Path, data: bytes, mode: int) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            temporary.chmod(mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
