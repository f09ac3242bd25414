"""What can be wrong with a user's data. Owns the error types; every text says what to do next."""

import errno
from pathlib import Path

from kinoswarm_protocol.errors import LocalError


class DataError(LocalError):
    """The data or the folder it lies in cannot be used as it is."""


class UnreadableVideo(DataError):
    """One file could not be decoded; `reason` is short and the same for files with the same problem."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}; remove the file or export it again")
        self.reason = reason


class EngineError(LocalError):
    """The engine that was asked for can't compute, or broke off. Not the data's fault: what is done is kept."""


class NoSpaceLeft(DataError):
    """The disk is full; nothing half-written is visible."""


def explained(error: OSError, folder: Path) -> DataError:
    """What went wrong while writing into `folder`, for people."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceLeft(f"no space left for {folder}; free some and run the same command again")
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
        return DataError(f"{folder} holds other files; choose an empty or new folder")
    return DataError(f"{folder}: {error.strerror or error}; check the folder and its permissions")
