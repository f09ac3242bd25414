"""Key files: one Ed25519 seed per file, 0600. Owns their form and libp2p's copy of them; must not print a seed."""

import secrets
from pathlib import Path

from kinoswarm_network.durable import create_atomic, write_atomic
from kinoswarm_protocol.errors import LocalError, MalformedBytes
from kinoswarm_protocol.keys import SEED_BYTES, KeyPair

_MAGIC = "kinoswarm-key-1"
_MAX_FILE_BYTES = 1_024


class CorruptKeyFile(LocalError):
    """The key file cannot be what we wrote; the text says where it is and what to do."""


def load_or_create_key(path: Path) -> KeyPair:
    """The key in `path`; a new one is drawn and kept when there is none. Two programs at once get the same key.

    Raises CorruptKeyFile or LocalError.
    """
    if not path.exists():
        create_atomic(path, key_text(KeyPair(secrets.token_bytes(SEED_BYTES))).encode())
    return load_key(path)


def load_key(path: Path) -> KeyPair:
    """The key in `path`, whose permissions are tightened to its owner's. Raises CorruptKeyFile or LocalError."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise LocalError(f"cannot read the key file {path}: {error.strerror}") from error
    try:
        return parse_key_text(raw.decode())
    except (UnicodeDecodeError, MalformedBytes) as error:
        raise CorruptKeyFile(
            f"the key file {path} is damaged ({error}); restore it from an export, or move it away to start with "
            "a new identity"
        ) from error


def key_text(key: KeyPair) -> str:
    """A key as one line of text, for its file and for export. The PeerId at its end tells a mistyped seed."""
    return f"{_MAGIC} {key.seed.hex()} {key.peer_id}\n"


def parse_key_text(text: str) -> KeyPair:
    """The key of a line that `key_text` made; raises MalformedBytes without quoting the secret."""
    words = text[:_MAX_FILE_BYTES].split()
    if len(words) != 3 or words[0] != _MAGIC:
        raise MalformedBytes(f"a key is one line of three words that starts with {_MAGIC}")
    try:
        seed = bytes.fromhex(words[1])
    except ValueError:
        raise MalformedBytes("the key's second word is not hexadecimal") from None
    key = KeyPair(seed)
    if key.peer_id != words[2]:
        raise MalformedBytes(f"the key's seed does not belong to {words[2][:64]}")
    return key


def write_libp2p_identity(key: KeyPair, path: Path) -> None:
    """The same key in the form that p2pd reads, 0600."""
    write_atomic(path, key.libp2p_private_key())
