"""A key that only a passphrase opens: for a paper, a mail to oneself, another machine. Owns the form of that text.

kinoswarm-backup-1 SALT NONCE SEALED     base64url; SEALED is the key line under ChaCha20-Poly1305, whose key is
                                         scrypt(passphrase, SALT) with N = 2^15, r = 8, p = 1 (RFC 7914)
kinoswarm-account-1 SALT NONCE SEALED    the same of an account's key: neither is taken for the other
"""

import base64
import binascii
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from kinoswarm_network.durable import create_atomic
from kinoswarm_network.identity import key_text, load_key, parse_key_text
from kinoswarm_node.home import Home, locked
from kinoswarm_protocol.errors import LocalError, MalformedBytes
from kinoswarm_protocol.keys import KeyPair

MIN_PASSPHRASE = 10
MACHINE = "kinoswarm-backup-1"
ACCOUNT = "kinoswarm-account-1"
_MAX_TEXT = 1_024
_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES = 16, 12, 32
_SCRYPT = {"n": 2**15, "r": 8, "p": 1}
"""32 MiB and a tenth of a second a try on a home machine."""


def seal_key(key: KeyPair, passphrase: str, kind: str = MACHINE) -> str:
    """The backup text of `key`. Raises LocalError for a passphrase that is too short to protect anything."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise LocalError(
            f"a passphrase needs at least {MIN_PASSPHRASE} characters; take a few words"
        )
    salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
    sealed = _cipher(passphrase, salt).encrypt(nonce, key_text(key).encode(), kind.encode())
    return (
        " ".join(
            [kind, *(base64.urlsafe_b64encode(part).decode() for part in (salt, nonce, sealed))]
        )
        + "\n"
    )


def open_key(text: str, passphrase: str, kind: str = MACHINE) -> KeyPair:
    """The key of a backup text. Raises LocalError when it is damaged or the passphrase is another one."""
    words = text[:_MAX_TEXT].split()
    if len(words) != 4 or words[0] != kind:
        raise LocalError(f"a backup is one line of four words that starts with {kind}")
    try:
        salt, nonce, sealed = (base64.urlsafe_b64decode(word) for word in words[1:])
        if len(nonce) != _NONCE_BYTES:
            raise MalformedBytes("the nonce has another length")
        raw = _cipher(passphrase, salt).decrypt(nonce, sealed, kind.encode())
        return parse_key_text(raw.decode())
    except InvalidTag:
        raise LocalError("the passphrase is another one, or the backup is damaged") from None
    except (binascii.Error, ValueError, MalformedBytes) as error:
        raise LocalError(f"the backup is damaged: {error}") from error


def read_backup(path: Path) -> str:
    """The text of a backup file. Raises LocalError when it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_TEXT).decode("ascii", "replace")
    except OSError as error:
        raise LocalError(f"the backup {path} can't be read: {error.strerror}") from error


def adopt_key(home: Home, key: KeyPair) -> None:
    """Make `key` the identity of a home that has none, or has this very one.

    Raises LocalError while a node runs there, and rather than replace another key.
    """
    home.create()
    with locked(home):
        keep_key(home.identity_path, key)


def keep_key(path: Path, key: KeyPair) -> None:
    """Write a key's file where there is none, or this very one. Raises LocalError rather than replace another key."""
    if create_atomic(path, key_text(key).encode()):
        return
    found = load_key(path).peer_id
    if found != key.peer_id:
        raise LocalError(
            f"{path} already holds the key of {found}; export it if you need it, then move it away"
        )


def _cipher(passphrase: str, salt: bytes) -> ChaCha20Poly1305:
    stretched = Scrypt(salt=salt, length=_KEY_BYTES, **_SCRYPT).derive(passphrase.encode())
    return ChaCha20Poly1305(stretched)
