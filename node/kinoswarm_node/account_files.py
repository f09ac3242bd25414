"""An owner's account on this machine: its key, and the paper that says for whom this machine counts. Owns these files.

HOME/account.key        the account's secret, 0600; only on the machine from which the owner delegates
HOME/delegation.txt     the account's signed statement about this machine, as one line of text

kinoswarm-delegation-1:BASE64     the envelope in URL-safe base64 without padding, for a mail or the clipboard
"""

import base64
import binascii
import secrets
from pathlib import Path

from kinoswarm_network.durable import create_atomic, write_atomic
from kinoswarm_network.identity import key_text, load_key
from kinoswarm_node.home import Home
from kinoswarm_protocol.accounts import Delegation, open_delegation
from kinoswarm_protocol.errors import LocalError, RemoteError
from kinoswarm_protocol.ids import PeerId
from kinoswarm_protocol.keys import SEED_BYTES, KeyPair
from kinoswarm_protocol.limits import MAX_ACCOUNT_BYTES

PREFIX = "kinoswarm-delegation-1:"
_MAX_TEXT = 4 * MAX_ACCOUNT_BYTES


def create_account(home: Home) -> KeyPair:
    """A new account key, kept here. Raises LocalError rather than replace one."""
    home.create()
    key = KeyPair(secrets.token_bytes(SEED_BYTES))
    if not create_atomic(home.account_key_path, key_text(key).encode()):
        raise LocalError(
            f"{home.account_key_path} holds an account already; `kinoswarm account show` tells which"
        )
    return key


def account_key(home: Home) -> KeyPair:
    """The account key that lies here. Raises LocalError saying how to get one."""
    if not home.account_key_path.exists():
        raise LocalError(
            f"no account key lies in {home.root}; make one with `kinoswarm account create`, or bring yours with "
            "`kinoswarm account import`"
        )
    return load_key(home.account_key_path)


def delegation_text(raw: bytes) -> str:
    """A delegation as one line of text."""
    return PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def delegation_from(typed: str) -> bytes:
    """The envelope of a line of text, or of a file that holds one. Raises LocalError."""
    text = "".join(typed.split())
    if not text.startswith(PREFIX):
        text = "".join(_file_text(typed).split())
    if not text.startswith(PREFIX) or len(text) > _MAX_TEXT:
        raise LocalError(f"a delegation is one line that starts with {PREFIX}, or a file with it")
    body = text.removeprefix(PREFIX)
    try:
        return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    except (binascii.Error, ValueError) as error:
        raise LocalError(
            f"the delegation is damaged ({error}); copy the whole line again"
        ) from None


def keep_delegation(home: Home, machine: PeerId, raw: bytes) -> Delegation:
    """Check that the paper is for this machine and keep it. Raises LocalError or the errors of open_delegation."""
    body = open_delegation(raw, machine).body
    write_atomic(home.delegation_path, (delegation_text(raw) + "\n").encode())
    return body


def own_delegation(home: Home, machine: PeerId) -> tuple[bytes, Delegation] | None:
    """The paper of this machine; None when there is none, or one that can't be this machine's."""
    if not home.delegation_path.is_file():
        return None
    try:
        raw = delegation_from(str(home.delegation_path))
        return raw, open_delegation(raw, machine).body
    except (LocalError, RemoteError):
        return None


def _file_text(typed: str) -> str:
    try:
        with Path(typed.strip()).expanduser().open("r", encoding="ascii", errors="replace") as file:
            return file.read(_MAX_TEXT + 1)
    except (OSError, ValueError, RuntimeError) as error:  # the last: nobody has the home ~name
        raise LocalError(
            f"{typed.strip()[:60]!r} is neither a delegation nor a file that can be read ({error})"
        ) from error
