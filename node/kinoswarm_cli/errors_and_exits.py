"""The program's exit codes, and how an error becomes one line for a person. Owns both; decides nothing else.

0   done                            5   the swarm refused
1   unexpected: a bug of ours       6   verification failed: altered or damaged bytes
2   the command line is wrong       7   this machine could not do the work
3   this machine or its settings  130   ended by Ctrl-C or a no
4   nobody could be reached
"""

import errno
import os
import sys
import traceback
from enum import IntEnum

from kinoswarm_protocol.errors import (
    BadSignature,
    HashMismatch,
    KinoswarmError,
    LimitExceeded,
    LocalError,
    MalformedBytes,
    Refused,
    Unreachable,
    VersionMismatch,
)

DEBUG_VARIABLE = "KINOSWARM_DEBUG"


class ExitCode(IntEnum):
    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    LOCAL = 3
    UNREACHABLE = 4
    REFUSED = 5
    VERIFICATION = 6
    WORK_FAILED = 7
    INTERRUPTED = 130


_CODE_BY_ERROR: tuple[tuple[type[KinoswarmError], ExitCode], ...] = (
    (LocalError, ExitCode.LOCAL),
    (Unreachable, ExitCode.UNREACHABLE),
    (Refused, ExitCode.REFUSED),
    (VersionMismatch, ExitCode.REFUSED),
    (BadSignature, ExitCode.VERIFICATION),
    (HashMismatch, ExitCode.VERIFICATION),
    (MalformedBytes, ExitCode.VERIFICATION),
    (LimitExceeded, ExitCode.VERIFICATION),
)

_WHAT_TO_DO: dict[ExitCode, str] = {
    ExitCode.UNREACHABLE: (
        "Check this machine's connection, and ask whoever invited you whether the swarm is up; "
        "then run the same command again."
    ),
    ExitCode.VERIFICATION: "Nothing of it was used. Ask for a fresh invite, or report it.",
}


def exit_code_of(error: KinoswarmError) -> ExitCode:
    """The documented exit code of an error of ours."""
    for kind, code in _CODE_BY_ERROR:
        if isinstance(error, kind):
            return code
    return ExitCode.UNEXPECTED


def explain(error: KinoswarmError) -> str:
    """One line that says what is wrong, and a second one when there is something to do about it."""
    what_to_do = _WHAT_TO_DO.get(exit_code_of(error), "")
    return f"kinoswarm: {error}" + (f"\n  {what_to_do}" if what_to_do else "")


def explain_os_error(error: OSError) -> str:
    """A full disk or an unreadable file, in words."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"kinoswarm: no space left on the disk{where}; free some and run the same command again"
        )
    return f"kinoswarm: {error.strerror or error}{where}"


def _is_expected(error: BaseException) -> bool:
    """Whether one line is enough; a module of somebody else that is missing is an installation without extras."""
    if isinstance(error, ModuleNotFoundError):
        return not (error.name or "kinoswarm").startswith("kinoswarm")
    return isinstance(error, KinoswarmError | OSError | KeyboardInterrupt)


def say_and_code(error: BaseException) -> int:
    """Print what went wrong to standard error; returns the exit code. Unknown errors are shown whole."""
    if os.environ.get(DEBUG_VARIABLE) or not _is_expected(error):
        traceback.print_exception(error)
    match error:
        case KeyboardInterrupt():
            print("kinoswarm: stopped", file=sys.stderr)  # noqa: T201
            return ExitCode.INTERRUPTED
        case KinoswarmError():
            print(explain(error), file=sys.stderr)  # noqa: T201
            return exit_code_of(error)
        case OSError():
            print(explain_os_error(error), file=sys.stderr)  # noqa: T201
            return ExitCode.LOCAL
        case ModuleNotFoundError() if _is_expected(error):
            print(  # noqa: T201
                f"kinoswarm: {error.name} is not installed, and this command needs it: "
                "pip install 'kinoswarm[node]' (to run a coordinator: 'kinoswarm[coordinator]')",
                file=sys.stderr,
            )
            return ExitCode.LOCAL
        case _:
            print(  # noqa: T201
                "kinoswarm: this is a bug of ours; please report it with the lines above",
                file=sys.stderr,
            )
            return ExitCode.UNEXPECTED
