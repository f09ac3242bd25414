"""Ranges of a blob that lies on the shelf alone: answered as those of a file are."""

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from kinoswarm_coordinator.web.network_routes import network_routes
from kinoswarm_coordinator.web.shelved_answers import span_of
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import CHUNK_BYTES

DATA = bytes(range(256)) * 4_100  # a little more than one chunk


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    folder = tmp_path_factory.mktemp("blobs")
    (folder / "source").write_bytes(DATA)
    made = BlobStore(folder / "store")
    made.add_file(folder / "source")
    return made


def client_of(store: Any, path_of: Any) -> TestClient:
    app = FastAPI()
    sources = SimpleNamespace(store=store, blob_path=path_of, manifest_bytes=store.manifest_bytes)
    app.include_router(network_routes(sources))  # type: ignore[arg-type]
    return TestClient(app, raise_server_exceptions=False)


def shelved(store: BlobStore) -> TestClient:
    """The same bytes, as if this machine's folder lacked them."""
    return client_of(store, lambda blob: None)


@pytest.mark.parametrize(
    "asked",
    [
        None,
        "bytes=0-0",
        "bytes=0-",
        "bytes=5-9",
        f"bytes={CHUNK_BYTES - 3}-{CHUNK_BYTES + 3}",
        "bytes=-7",
        f"bytes=0-{10**12}",
        f"bytes={len(DATA)}-",
    ],
)
def test_a_range_is_answered_as_that_of_a_file_is(store: BlobStore, asked: str | None) -> None:
    blob = store.blobs()[0].blob
    headers = {"Range": asked} if asked else {}
    url = f"/kinoswarm/1/blobs/{blob}"
    file = client_of(store, store.local_path_of).get(url, headers=headers)
    shelf = shelved(store).get(url, headers=headers)
    assert shelf.status_code == file.status_code
    assert shelf.headers.get("content-range") == file.headers.get("content-range")
    if shelf.status_code < 400:
        assert shelf.content == file.content
        for name in ("etag", "cache-control", "content-length", "accept-ranges"):
            assert shelf.headers[name] == file.headers[name], name


def test_a_blob_that_nobody_has_is_not_found(store: BlobStore) -> None:
    assert shelved(store).get(f"/kinoswarm/1/blobs/{'77' * 32}").status_code == 404


def test_a_shelf_that_fails_midway_breaks_the_answer_and_never_ends_it_well(
    store: BlobStore,
) -> None:
    class Failing(BlobStore):
        def read_range(self, blob: BlobId, start: int, size: int) -> bytes:
            if start:
                raise LocalError("the storage went away")
            return super().read_range(blob, start, size)

    failing = Failing(store.root)
    with shelved(failing).stream("GET", f"/kinoswarm/1/blobs/{store.blobs()[0].blob}") as answer:
        try:
            got = b"".join(answer.iter_bytes())
        except Exception:
            got = b""
    assert len(got) < len(DATA)


@given(
    st.one_of(st.none(), st.text(max_size=40), st.from_regex(r"bytes=\d*-\d*")),
    st.integers(0, 2**40),
)
def test_whatever_is_asked_the_span_lies_in_the_blob(asked: str | None, size: int) -> None:
    span = span_of(asked, size)
    if span is not None:
        assert 0 <= span.start <= span.stop <= size
        assert span.is_part or (span.start, span.stop) == (0, size)
