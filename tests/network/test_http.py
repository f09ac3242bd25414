"""The second way: blobs over HTTP, verified chunk by chunk, resumed, and never believed."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from network.web import WebServer, own_certificate, serving

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.http_client import HttpSource
from kinoswarm_protocol.errors import (
    Code,
    HashMismatch,
    LimitExceeded,
    LocalError,
    Refused,
    Unreachable,
)
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MIB

T = TypeVar("T")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    with serving(BlobStore(tmp_path / "theirs")) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "ours")


def publish(server: WebServer, source: Path, num_bytes: int) -> tuple[BlobId, bytes]:
    data = os.urandom(num_bytes)
    source.write_bytes(data)
    return server.store.add_file(source), data


def use(url: str, store: BlobStore, work: Callable[[HttpSource], Awaitable[T]], pin: str = "") -> T:
    async def open_and_work() -> T:
        async with HttpSource(url, store, pin, chunk_timeout_s=5.0) as source:
            return await work(source)

    return asyncio.run(open_and_work())


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 5])
def test_blobs_of_every_shape_arrive(
    server: WebServer, store: BlobStore, source: Path, size: int
) -> None:
    blob, data = publish(server, source, size)
    told: list[tuple[int, int]] = []
    path = use(
        server.url,
        store,
        lambda web: web.fetch_blob(blob, on_progress=lambda *sizes: told.append(sizes)),
    )
    assert path.read_bytes() == data
    assert store.path_of(blob) == path
    assert not size or told[-1] == (size, size)


def test_a_download_that_breaks_off_goes_on_with_the_missing_chunks(
    server: WebServer, store: BlobStore, source: Path
) -> None:
    blob, data = publish(server, source, 6 * MIB)
    server.faults.add("end early")
    path = use(server.url, store, lambda web: web.fetch_blob(blob))
    assert path.read_bytes() == data
    assert server.ranges == [(0, 6 * MIB - 1), (3 * MIB, 6 * MIB - 1)]


def test_a_server_that_never_gets_through_a_chunk_is_given_up(
    server: WebServer, store: BlobStore, source: Path
) -> None:
    blob, _ = publish(server, source, MIB)
    server.faults.add("end early")
    with pytest.raises(Unreachable, match="broke off"):
        use(server.url, store, lambda web: web.fetch_blob(blob))


def test_wrong_bytes_are_never_kept(server: WebServer, store: BlobStore, source: Path) -> None:
    blob, _ = publish(server, source, 2 * MIB)
    server.faults.add("wrong bytes")
    with pytest.raises(HashMismatch, match="chunk 0"):
        use(server.url, store, lambda web: web.fetch_blob(blob))
    assert store.path_of(blob) is None


def test_a_server_that_ignores_ranges_serves_a_first_try_and_refuses_to_resume(
    server: WebServer, store: BlobStore, source: Path
) -> None:
    blob, data = publish(server, source, 4 * MIB)
    server.faults.update({"ignore range", "end early"})
    with pytest.raises(Refused, match="ignores Range"):
        use(server.url, store, lambda web: web.fetch_blob(blob))
    store.drop(blob)
    assert use(server.url, store, lambda web: web.fetch_blob(blob)).read_bytes() == data


def test_only_the_gaps_are_asked_for(server: WebServer, store: BlobStore, source: Path) -> None:
    blob, data = publish(server, source, 5 * MIB)
    partial = store.begin(blob, server.store.manifest_bytes(blob) or b"")
    for index in (1, 2):
        partial.write_chunk(index, data[index * MIB : (index + 1) * MIB])
    partial.close()
    use(server.url, store, lambda web: web.fetch_blob(blob))
    assert server.ranges == [(0, MIB - 1), (3 * MIB, 5 * MIB - 1)]


def test_an_unknown_blob_is_refused_as_not_found(server: WebServer, store: BlobStore) -> None:
    with pytest.raises(Refused, match="answered 404") as caught:
        use(server.url, store, lambda web: web.fetch_blob(BlobId("00" * 32)))
    assert caught.value.code == Code.NOT_FOUND


def test_control_answers_are_bounded_and_refusals_typed(
    server: WebServer, store: BlobStore
) -> None:
    assert use(server.url, store, lambda web: web.ask(b"x")) == b"somebody asked x"
    with pytest.raises(LimitExceeded, match="over"):
        use(server.url, store, lambda web: web.ask(b"flood"))
    with pytest.raises(Refused) as caught:
        use(server.url, store, lambda web: web.ask(b"refuse"))
    assert caught.value.code == Code.NOT_PERMITTED


def test_nobody_at_the_address_is_said_in_words(store: BlobStore) -> None:
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:1 cannot be reached"):
        use("http://127.0.0.1:1", store, lambda web: web.ask(b"x"))


@pytest.mark.parametrize("url", ["", "example.org", "ftp://example.org", "http://"])
def test_what_is_no_web_address_is_a_local_error(url: str, store: BlobStore) -> None:
    with pytest.raises(LocalError, match="is not an address such as"):
        HttpSource(url, store)


def test_a_pinned_certificate_needs_no_authority_and_another_one_is_told(tmp_path: Path) -> None:
    pem = tmp_path / "certificate.pem"
    pin = own_certificate(pem)
    store = BlobStore(tmp_path / "ours")
    with serving(BlobStore(tmp_path / "theirs"), pem) as server:
        assert use(server.url, store, lambda web: web.ask(b"x"), pin) == b"somebody asked x"
        with pytest.raises(HashMismatch, match="somebody stands in between"):
            use(server.url, store, lambda web: web.ask(b"x"), "ab" * 32)
        with pytest.raises(Unreachable, match="cannot be reached"):
            use(server.url, store, lambda web: web.ask(b"x"))
