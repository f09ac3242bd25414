"""What can be wrong with a user's data. Owns the error types; every text says what to do next."""

from kinoswarm_protocol.errors import LocalError


class DataError(LocalError):
    """The data or the folder it lies in cannot be used as it is."""


class UnreadableVideo(DataError):
    """One file could not be decoded; `reason` is short and the same for files with the same problem."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}; remove the file or export it again")
        self.reason = reason


class NoSpaceLeft(DataError):
    """The disk is full; nothing half-written is visible."""
