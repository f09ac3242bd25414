"""The second way: a coordinator's HTTP(S) address. Owns our use of its routes; needs no network process.

`GET /kinoswarm/1/blobs/<id>/manifest`, `GET /kinoswarm/1/blobs/<id>` with Range, `POST /kinoswarm/1/control`,
`GET /kinoswarm/1/charter`; uploads are http_upload's.
Every chunk is verified on arrival, so the server and its certificate are not trusted for bytes.
"""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import httpx
import msgspec

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.http_upload import HttpUpload
from kinoswarm_network.link import OnProgress
from kinoswarm_network.partial_blob import PartialBlob
from kinoswarm_network.rate_caps import Caps
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import (
    Code,
    HashMismatch,
    LimitExceeded,
    LocalError,
    MalformedBytes,
    Refused,
    Unreachable,
)
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.limits import (
    CHUNK_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    CONTROL_TIMEOUT_S,
    MAX_CHAIN_BYTES,
    MAX_CONTROL_FRAME,
    MAX_MANIFEST_BYTES,
    MAX_SENTENCE,
    PROTOCOL_VERSION,
)
from kinoswarm_protocol.messages import ProviderHint

_PREFIX = f"/kinoswarm/{PROTOCOL_VERSION}"
_OCTETS = {"Content-Type": "application/octet-stream"}
_MAX_PROBLEM_BYTES = 4_096
_CODE_BY_STATUS = {
    401: Code.NOT_PERMITTED,
    403: Code.NOT_PERMITTED,
    404: Code.NOT_FOUND,
    409: Code.NOT_FOUND,
    413: Code.OVERSIZE,
    422: Code.MALFORMED,
    429: Code.RATE_LIMITED,
    503: Code.OVERLOADED,
}


class _Problem(msgspec.Struct):
    detail: str = ""


class HttpSource:
    """One coordinator's address. Use it as an async context, or call `close`."""

    def __init__(
        self,
        base_url: str,
        store: BlobStore,
        certificate_sha256: str = "",
        chunk_timeout_s: float = CHUNK_TIMEOUT_S,
        caps: Caps | None = None,
    ) -> None:
        """`certificate_sha256` pins the server's own certificate (hex, from the invite); empty trusts public CAs.

        `caps` bound blobs in both directions; None is no bound.

        Raises LocalError when `base_url` is no http(s) address.
        """
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LocalError(f"{base_url!r} is not an address such as https://example.org:8700")
        self.base_url = base_url.rstrip("/")
        self._store = store
        self._pin = certificate_sha256
        self._timeout = httpx.Timeout(chunk_timeout_s, connect=CONNECT_TIMEOUT_S)
        self._caps = caps
        self._client: httpx.AsyncClient | None = None

    def __str__(self) -> str:
        return self.base_url

    async def __aenter__(self) -> "HttpSource":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections; it opens new ones when used again."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def ask(self, request: bytes) -> bytes:
        """The coordinator's answer to an envelope. Raises Unreachable or Refused."""
        try:
            async with asyncio.timeout(CONTROL_TIMEOUT_S):
                return await self.exchange("POST", "/control", MAX_CONTROL_FRAME, request)
        except TimeoutError as error:
            raise self._unreachable(error) from error

    async def charter_chain(self) -> bytes:
        """The charter with its amendments as this address hands it out, unchecked. Raises Unreachable or Refused."""
        try:
            async with asyncio.timeout(CONTROL_TIMEOUT_S):
                return await self.exchange("GET", "/charter", MAX_CHAIN_BYTES)
        except TimeoutError as error:
            raise self._unreachable(error) from error

    async def fetch_blob(
        self,
        blob: BlobId,
        providers: Sequence[ProviderHint] = (),
        on_progress: OnProgress | None = None,
    ) -> Path:
        """A complete, verified blob from this address alone (`providers` are peers and not asked); resumes.

        Raises Unreachable, Refused or HashMismatch; LocalError when the disk is full.
        """
        if path := await asyncio.to_thread(self._store.path_of, blob):
            return path
        partial = await self._begin(blob)
        try:
            while partial.missing:
                await self._fetch_more(partial, on_progress)
            return await asyncio.to_thread(self._store.finish, partial)
        finally:
            partial.close()

    async def deliver(self, lease_id: LeaseId, blob: BlobId) -> None:
        """Bring a blob of ours, chunk by chunk; resumes what an earlier try left.

        Raises Unreachable or Refused; LocalError when the blob is not here.
        """
        await HttpUpload(self.exchange, self._store, lease_id, blob).bring(self._sending)

    async def _sending(self, num_bytes: int) -> None:
        if self._caps is not None:
            await self._caps.delivering(num_bytes)

    async def _fetch_more(self, partial: PartialBlob, on_progress: OnProgress | None) -> None:
        """Fetch the first gap; a connection that breaks off is forgiven while it brings something."""
        before = partial.done_bytes
        try:
            await self._fetch_run(partial, _first_run(partial.missing), on_progress)
        except httpx.HTTPError as error:
            if partial.done_bytes == before:
                raise self._unreachable(error) from error

    async def _begin(self, blob: BlobId) -> PartialBlob:
        raw = await asyncio.to_thread(self._store.partial_manifest, blob)
        if raw is not None:
            try:
                return await asyncio.to_thread(self._store.begin, blob, raw)
            except (HashMismatch, MalformedBytes):
                pass  # torn by a power cut: ask for it again
        raw = await self.exchange("GET", f"/blobs/{blob}/manifest", MAX_MANIFEST_BYTES)
        return await asyncio.to_thread(self._store.begin, blob, raw)

    async def exchange(
        self, method: str, path: str, max_bytes: int, content: bytes | None = None
    ) -> bytes:
        """One request below the protocol's prefix, and up to `max_bytes` of its answer.

        Raises Unreachable, Refused with the other side's own sentence, or LimitExceeded.
        """
        try:
            client = await self._connected()
            url = self.base_url + _PREFIX + path
            async with client.stream(method, url, content=content, headers=_OCTETS) as reply:
                return await _bounded(reply, max_bytes)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    async def _fetch_run(
        self, partial: PartialBlob, run: range, on_progress: OnProgress | None
    ) -> None:
        """Fetch neighbouring chunks in one request."""
        manifest = partial.manifest
        start = run.start * manifest.chunk_bytes
        end = min(run.stop * manifest.chunk_bytes, manifest.size_bytes) - 1
        url = f"{self.base_url}{_PREFIX}/blobs/{partial.blob}"
        client = await self._connected()
        async with client.stream("GET", url, headers={"Range": f"bytes={start}-{end}"}) as reply:
            await _check_status(reply)
            if reply.status_code != 206 and start > 0:
                raise Refused(
                    Code.NOT_PERMITTED,
                    f"{self} ignores Range, so a download cannot be resumed there",
                )
            sizes = [manifest.chunk_size(index) for index in run]
            index = run.start
            async for chunk in _cut(reply.aiter_raw(), sizes):
                if self._caps is not None:
                    await self._caps.fetching(len(chunk))
                await asyncio.to_thread(partial.write_chunk, index, chunk)
                index += 1
                if on_progress is not None:
                    on_progress(partial.done_bytes, manifest.size_bytes)
        if index < run.stop:
            raise Unreachable(
                f"{self} ended the download at chunk {index} of {manifest.num_chunks}; try again to resume"
            )

    async def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            verify: ssl.SSLContext | bool = True
            if self._pin:
                verify = await asyncio.to_thread(_pinned_context, self.base_url, self._pin)
            self._client = httpx.AsyncClient(
                timeout=self._timeout, verify=verify, headers={"Accept-Encoding": "identity"}
            )
        return self._client

    def _unreachable(self, error: Exception) -> Unreachable:
        if isinstance(error, httpx.ConnectTimeout | TimeoutError):
            return Unreachable(
                f"{self} did not answer in time: is the address right, and is it up?"
            )
        if isinstance(error, httpx.ConnectError):
            return Unreachable(f"{self} cannot be reached ({error}): is the address right?")
        return Unreachable(f"{self} broke off ({type(error).__name__}: {error})")


def _first_run(missing: Sequence[int]) -> range:
    """The neighbouring chunks at the head of the sorted `missing`."""
    stop = missing[0] + 1
    for index in missing[1:]:
        if index != stop:
            break
        stop += 1
    return range(missing[0], stop)


async def _cut(pieces: AsyncIterator[bytes], sizes: Sequence[int]) -> AsyncIterator[bytes]:
    """Chunks of exactly `sizes` bytes from pieces of any size; what comes after them is not read."""
    held = bytearray()
    wanted = iter(sizes)
    size = next(wanted, None)
    async for piece in pieces:
        held += piece
        while size is not None and len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
            size = next(wanted, None)
        if size is None:
            return


async def _bounded(reply: httpx.Response, max_bytes: int) -> bytes:
    await _check_status(reply)
    return await _read_up_to(reply, max_bytes)


async def _read_up_to(reply: httpx.Response, max_bytes: int) -> bytes:
    held = bytearray()
    async for piece in reply.aiter_raw():
        held += piece
        if len(held) > max_bytes:
            raise LimitExceeded(f"{reply.url}: over {max_bytes} bytes")
    return bytes(held)


async def _check_status(reply: httpx.Response) -> None:
    if reply.status_code not in (200, 204, 206):
        code = _CODE_BY_STATUS.get(reply.status_code, Code.UNREACHABLE)
        why = await _problem_of(reply) or reply.reason_phrase
        raise Refused(code, f"{reply.url} answered {reply.status_code}: {why}")


async def _problem_of(reply: httpx.Response) -> str:
    """The sentence of a problem document (RFC 9457); empty when the answer is something else."""
    try:
        raw = await _read_up_to(reply, _MAX_PROBLEM_BYTES)
        return decode_json(raw, _Problem).detail[:MAX_SENTENCE]
    except (LimitExceeded, MalformedBytes):
        return ""


def _pinned_context(base_url: str, pin: str) -> ssl.SSLContext:
    """TLS that accepts exactly the certificate whose SHA-256 is `pin`, whoever signed it and for whatever name."""
    parts = urlsplit(base_url)
    assert parts.hostname is not None
    try:
        pem = ssl.get_server_certificate(
            (parts.hostname, parts.port or 443), timeout=CONNECT_TIMEOUT_S
        )
    except OSError as error:
        raise Unreachable(f"{base_url} cannot be reached over TLS ({error})") from error
    found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    if found != pin:
        raise HashMismatch(
            f"{base_url} shows the certificate {found[:12]}…, the invite names {pin[:12]}…: somebody stands "
            "in between, or the coordinator made a new one; ask for a fresh invite"
        )
    context = ssl.create_default_context(cadata=pem)
    context.check_hostname = False
    return context
