"""Getting an invite from what a person typed: its text, a file or an address. Owns the reading, not its form."""

import base64
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from kinoswarm_protocol.envelope import Opened
from kinoswarm_protocol.errors import LimitExceeded, LocalError, Unreachable
from kinoswarm_protocol.ids import SwarmId
from kinoswarm_protocol.invite import PREFIX, Invite, read_invite
from kinoswarm_protocol.limits import CONNECT_TIMEOUT_S, CONTROL_TIMEOUT_S, MAX_INVITE_BYTES

INVITE_PATH = "/invite.txt"
"""Where a coordinator's web address serves its invite."""

_MAX_TEXT = 2 * MAX_INVITE_BYTES
_MAX_FILE_NAME = 4096
_ID_DIGITS = 64


def is_address(text: str) -> bool:
    """Whether this is an http(s) address."""
    return text.strip().lower().startswith(("http://", "https://"))


def get_invite(typed: str) -> Opened[Invite]:
    """The verified invite. Raises LocalError, Unreachable or the errors of read_invite."""
    if is_address(typed):
        return read_invite(_download(typed.strip()))
    compact = "".join(typed.split())
    if compact.startswith(PREFIX):
        return read_invite(typed)
    return read_invite(_file_text(typed, compact))


def invite_text(opened: Opened[Invite]) -> str:
    """The same invite as one line of text."""
    return PREFIX + base64.urlsafe_b64encode(opened.raw).decode().rstrip("=")


def _file_text(typed: str, compact: str) -> str:
    path = Path(typed.strip())
    try:
        path = path.expanduser()
        if len(typed) <= _MAX_FILE_NAME and path.is_file():
            with path.open("r", encoding="utf-8", errors="replace") as file:
                return file.read(_MAX_TEXT + 1)
    except OSError as error:
        raise LocalError(f"the invite in {path} can't be read: {error.strerror}") from error
    except RuntimeError as error:  # "~name" where nobody of that name has a home
        raise LocalError(f"the invite in {path} can't be read: {error}") from error
    raise LocalError(
        f"{compact[:60]!r} is no invite: neither text that starts with {PREFIX!r}, nor a file, nor an "
        "http(s) address; copy the whole invite again, in quotes"
    )


def _download(address: str) -> str:
    """The invite at `address`, or under INVITE_PATH of it when `address` names a host or a folder."""
    parts = urlsplit(address)
    if not parts.hostname:
        raise LocalError(f"{address!r} names no host; an address looks like https://host:port")
    if parts.path in ("", "/"):
        address = f"{parts.scheme}://{parts.netloc}{INVITE_PATH}"
    elif parts.path.endswith("/"):
        address = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{INVITE_PATH}"
    timeout = httpx.Timeout(CONTROL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    try:
        with httpx.stream("GET", address, timeout=timeout, follow_redirects=True) as answer:
            if answer.status_code != httpx.codes.OK:
                raise Unreachable(f"{address} answered with status {answer.status_code}")
            return _bounded_text(answer, address)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreachable(f"{address} can't be reached: {error or type(error).__name__}") from error


def _bounded_text(answer: httpx.Response, address: str) -> str:
    raw = bytearray()
    for piece in answer.iter_bytes():
        raw += piece
        if len(raw) > _MAX_TEXT:
            raise LimitExceeded(f"{address} sends more than an invite's {_MAX_TEXT} bytes")
    return raw.decode("utf-8", "replace")


def swarm_of(typed: str) -> SwarmId:
    """The swarm that a person means by its id or by an invite. Raises LocalError or the errors of read_invite."""
    text = typed.strip().lower()
    if len(text) == _ID_DIGITS and all(c in "0123456789abcdef" for c in text):
        return SwarmId(text)
    return get_invite(typed).body.swarm
