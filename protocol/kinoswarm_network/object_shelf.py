"""Blobs as objects of S3-compatible storage. Owns their names there and the words for what goes wrong.

`<prefix>/<ab>/<id>` is the data, `<prefix>/<ab>/<id>.manifest` its manifest, written last: a blob is there when its
manifest is. Nothing read here is believed; shelved_store.py verifies it. Endpoint and keys come from the environment
that S3 programs share (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from re import search
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kinoswarm_protocol.errors import LimitExceeded, LocalError, Unreachable
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import (
    CHUNK_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    CONTROL_TIMEOUT_S,
    MAX_MANIFEST_BYTES,
)

if TYPE_CHECKING:
    from obstore.store import S3Store

_MANIFEST = ".manifest"
_PART_BYTES = 8 * 1024 * 1024
"""Of an upload in parts; S3 wants at least 5 MiB, and 10,000 of them hold 80 GB."""


class ObjectShelf:
    """One bucket and prefix. Methods block on the network and raise Unreachable when it does not answer."""

    def __init__(self, url: str) -> None:
        """`url` is s3://BUCKET/PREFIX. Raises LocalError when it is not, or obstore is not installed."""
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or parts.username or parts.query:
            raise LocalError(
                f"{_shown(url)} is not an address of blobs such as s3://bucket/prefix; keys belong into the "
                "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
            )
        self.url = url.rstrip("/")
        self._store = _open(self.url)

    def check(self) -> None:
        """Look into the bucket. Raises LocalError that says what to mend: a start is the time for it."""
        try:
            self.names()
        except Unreachable as error:
            raise LocalError(
                f"{error}. Check the bucket's name, AWS_ENDPOINT_URL, AWS_REGION and the keys in AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            ) from error

    def names(self) -> set[str]:
        """The ids of all blobs that are there whole."""
        found: set[str] = set()
        with self._faults():
            for page in self._store.list(chunk_size=1_000):
                names = (entry["path"].rpartition("/")[2] for entry in page)
                found |= {n.removesuffix(_MANIFEST) for n in names if n.endswith(_MANIFEST)}
        return found

    def manifest(self, blob: BlobId) -> bytes | None:
        """The bytes under the manifest's name, or None."""
        try:
            with self._faults():
                found = self._store.get(_name(blob) + _MANIFEST)
                size = found.meta["size"]
                if size > MAX_MANIFEST_BYTES:
                    raise LimitExceeded(f"manifest of {size} bytes, at most {MAX_MANIFEST_BYTES}")
                return bytes(found.bytes())
        except FileNotFoundError:
            return None

    def read(self, blob: BlobId, start: int, size: int) -> bytes:
        """`size` bytes of the data from offset `start`; fewer where the object is too short."""
        try:
            with self._faults():
                return bytes(self._store.get_range(_name(blob), start=start, length=size))
        except FileNotFoundError:
            raise Unreachable(f"the data of blob {blob[:12]}… is not in {self.url}") from None

    def put(self, blob: BlobId, manifest_raw: bytes, data: Path) -> None:
        """Keep a verified blob: the data, then the manifest, so that a crash in between leaves no half blob."""
        with self._faults():
            self._store.put(_name(blob), data, chunk_size=_PART_BYTES)
            self._store.put(_name(blob) + _MANIFEST, manifest_raw)

    def remove(self, blob: BlobId) -> None:
        """Delete a blob, its manifest first, so that a crash in between leaves no half one; unknown is no error."""
        for name in (_name(blob) + _MANIFEST, _name(blob)):
            with suppress(FileNotFoundError), self._faults():
                self._store.delete(name)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except BaseError as error:
            raise Unreachable(f"{self.url} cannot be used: {_reason(error)}") from error


def _name(blob: BlobId) -> str:
    return f"{blob[:2]}/{blob}"


def _open(url: str) -> "S3Store":
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise LocalError("blobs on s3:// need obstore: pip install 'kinoswarm[s3]'") from error
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    return S3Store.from_url(
        url,
        config={"virtual_hosted_style_request": False},
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "timeout": timedelta(seconds=CHUNK_TIMEOUT_S),
        },
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=CONTROL_TIMEOUT_S)},
    )


def _reason(error: Exception) -> str:
    """What the library says in words for an operator; its text goes on with its own debugging."""
    text = str(error)
    if found := search(r"status code: (\d{3} [A-Za-z ]+)", text):
        return f"the storage answers {found[1].strip()}"
    if "error sending request" in text:
        return "nobody answers at its endpoint"
    return text.strip().splitlines()[0][:300]


def _shown(url: str) -> str:
    """Without what may be a secret."""
    return repr(url.rpartition("@")[2][:100])
