"""The node's folder: which file lies where, and the lock that keeps a second daemon out. Decides nothing.

HOME/account.key delegation.txt          see account_files.py
HOME/identity.key settings.toml lock format.json status.json invite.txt blobs/ node.log network.log worker.log
HOME/paused go leave                   see wishes.py
HOME/limits.json page.json page.token notices.json   see limits_file.py, page/server.py, desktop_notices.py
HOME/swarms/<first 16 of the swarm id>/   see swarm_folder.py
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from kinoswarm_network.durable import write_atomic
from kinoswarm_network.file_lock import is_locked, try_lock
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import LocalError, MalformedBytes
from kinoswarm_protocol.ids import SwarmId

FORMAT = 1
"""Raised when a change of the files here would be misread by the program before it."""

_MAX_FORMAT_FILE = 4096
_DIGITS_OF_ID = 16  # 64 bits keep folders of one volunteer's swarms apart


class HomeFormat(Struct, frozen=True, kw_only=True):
    """Who wrote a home last."""

    format: int
    program: str


@dataclass(frozen=True)
class Home:
    """Paths inside one node's folder."""

    root: Path

    @property
    def identity_path(self) -> Path:
        return self.root / "identity.key"

    @property
    def account_key_path(self) -> Path:
        return self.root / "account.key"

    @property
    def delegation_path(self) -> Path:
        return self.root / "delegation.txt"

    @property
    def lock_path(self) -> Path:
        return self.root / "lock"

    @property
    def status_path(self) -> Path:
        return self.root / "status.json"

    @property
    def log_path(self) -> Path:
        """What the daemon decided, as lines of JSON."""
        return self.root / "node.log"

    @property
    def format_path(self) -> Path:
        return self.root / "format.json"

    @property
    def invite_path(self) -> Path:
        """The invite of the last swarm joined."""
        return self.root / "invite.txt"

    @property
    def blobs_path(self) -> Path:
        return self.root / "blobs"

    def swarm_root(self, swarm: SwarmId) -> Path:
        """The folder of what this node keeps for one swarm."""
        return self.root / "swarms" / swarm[:_DIGITS_OF_ID]

    def create(self) -> None:
        """Make the folder, private to this user; raises LocalError when that can't be done."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise LocalError(
                f"the folder {self.root} can't be made ({error.strerror}); choose another with --home"
            ) from error


@contextlib.contextmanager
def locked(home: Home) -> Iterator[None]:
    """Hold the home against a second daemon; the lock goes with the process, however it ends.

    Raises LocalError naming the other process.
    """
    home.create()
    try:
        handle = os.open(home.lock_path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LocalError(
            f"the folder {home.root} can't be written ({error.strerror}); choose another with --home"
        ) from error
    try:
        _take(handle, home)
        yield
    finally:
        os.close(handle)


def check_format(home: Home, program: str) -> None:
    """Note which program writes this home, or refuse one that a newer program wrote.

    A newer home may hold what this program would misread and so lose. Raises LocalError saying what to do.
    """
    try:
        raw = home.format_path.read_bytes()[:_MAX_FORMAT_FILE]
    except FileNotFoundError:
        found = HomeFormat(format=FORMAT, program=program)
    else:
        try:
            found = decode_json(raw, HomeFormat)
        except MalformedBytes:
            found = HomeFormat(format=FORMAT, program=program)
    if found.format > FORMAT:
        raise LocalError(
            f"the folder {home.root} was last written by kinoswarm {found.program}, whose files (format "
            f"{found.format}) this version {program} (format {FORMAT}) can't read without losing work; update with: "
            "pip install --upgrade kinoswarm, or give this version its own --home"
        )
    note = msgspec.json.encode(HomeFormat(format=FORMAT, program=program))
    write_atomic(home.format_path, note)


def running_pid(home: Home) -> int | None:
    """Process id of the daemon that holds this home now; None when none does."""
    try:
        handle = os.open(home.lock_path, os.O_RDONLY)
    except OSError:
        return None
    try:
        text = _holder(handle) if is_locked(handle) else ""
        return int(text) if text.isdecimal() else None
    finally:
        os.close(handle)


def _take(handle: int, home: Home) -> None:
    if not try_lock(handle):
        pid = _holder(handle) or "unknown"
        raise LocalError(
            f"another node runs in {home.root} (process {pid}); stop it first, or give this one its own --home"
        )
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode("ascii"))


def _holder(handle: int) -> str:
    return os.read(handle, 32).decode("ascii", "replace").strip()
