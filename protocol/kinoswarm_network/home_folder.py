"""The network process's own folder: who may use it, what an earlier process left, where sockets go."""

import fcntl
import hashlib
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from kinoswarm_network.durable import disk_errors, write_atomic
from kinoswarm_protocol.errors import LocalError

_MAX_SOCKET_PATH = 90
"""A Unix socket's path has at most 104 bytes on macOS and 108 on Linux, its null byte included."""

_STALE_WAIT_S = 3.0


class HomeFolder:
    """Exclusive use of one folder for as long as this process lives."""

    def __init__(self, path: Path) -> None:
        """Lock `path`, creating it. Raises LocalError when another process uses it or it cannot be written."""
        self.path = path
        self._sockets: Path | None = None
        with disk_errors(path, 4_096):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (path / "network.lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(self._lock)
            self.close()
            raise LocalError(
                f"process {owner} already uses {path}; stop it first, or give this one another home folder"
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def close(self) -> None:
        """Let others use the folder, and leave nothing in the system's temporary folder."""
        if self._sockets is not None:
            for left in self._sockets.iterdir():
                left.unlink()
            self._sockets.rmdir()
            self._sockets = None
        self._lock.close()

    def sockets(self) -> Path:
        """A private folder for Unix sockets, emptied; in the system's temporary folder when the home's path is long."""
        folder = self.path / "run"
        if len(os.fsencode(folder)) > _MAX_SOCKET_PATH - len("/client.sock"):
            name = hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"kinoswarm-{os.getuid()}-{name}"
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
        if state.st_uid != os.getuid() or state.st_mode & 0o077:
            raise LocalError(f"{folder} belongs to somebody else or is open to others; remove it")
        for left in folder.iterdir():
            left.unlink()
        self._sockets = folder
        return folder

    def remember_daemon(self, pid: int) -> None:
        """Note the libp2p daemon's process id, for whoever starts next."""
        write_atomic(self.path / "p2pd.pid", str(pid).encode())

    def end_stale_daemon(self, identity: Path) -> None:
        """Kill a daemon of this folder that outlived its process, where the kernel did not do so already."""
        try:
            pid = int((self.path / "p2pd.pid").read_text())
        except (FileNotFoundError, ValueError):
            return
        if str(identity) not in _command_line(pid):
            return
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + _STALE_WAIT_S
        while _command_line(pid) and time.monotonic() < deadline:
            time.sleep(0.01)


def _owner(lock: IO[str]) -> str:
    lock.seek(0)
    found = re.match(r"\d{1,10}", lock.read(16))
    return found.group() if found else "(unknown)"


def _command_line(pid: int) -> str:
    """How a process was started; empty when it does not run or has ended and waits to be collected."""
    if Path("/proc/self/cmdline").exists():
        try:
            return (
                Path(f"/proc/{pid}/cmdline")
                .read_bytes()
                .replace(b"\0", b" ")
                .decode(errors="replace")
            )
        except (FileNotFoundError, ProcessLookupError):
            return ""
    found = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()
