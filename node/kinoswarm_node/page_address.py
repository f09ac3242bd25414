"""HOME/page.json: where the running node's page is, with its token, for this user's eyes (0600). Owns that file."""

from pathlib import Path

import msgspec
from msgspec import Struct

from kinoswarm_network.durable import write_atomic
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import LocalError, MalformedBytes

_FILE = "page.json"
_MAX_FILE = 4096


class _Page(Struct, frozen=True):
    address: str
    fingerprint: str
    """Of the page's certificate; empty on this machine alone, where there is none."""


def write_address(home: Path, address: str, fingerprint: str) -> None:
    write_atomic(home / _FILE, msgspec.json.encode(_Page(address, fingerprint)))


def forget_address(home: Path) -> None:
    (home / _FILE).unlink(missing_ok=True)


def read_address(home: Path) -> tuple[str, str]:
    """Address and fingerprint. Raises LocalError when no page is served from this home."""
    try:
        page = decode_json((home / _FILE).read_bytes()[:_MAX_FILE], _Page)
    except (FileNotFoundError, MalformedBytes) as error:
        raise LocalError(
            f"no page is served from {home}: start the node with `kinoswarm join`, with page_port not 0"
        ) from error
    return page.address, page.fingerprint
