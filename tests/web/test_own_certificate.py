"""A coordinator at home: its web address has a certificate of its own, and the invite's hash of it is all the trust."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from web.served import sources

from kinoswarm_coordinator.serve import _server
from kinoswarm_coordinator.settings import CoordinatorSettings
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.certificate import ensure_certificate
from kinoswarm_network.http_client import HttpSource
from kinoswarm_network.listening import bound_socket
from kinoswarm_protocol.errors import HashMismatch, Unreachable


def over_tls(folder: Path, pin: str | None, work: Callable[[HttpSource], Awaitable[None]]) -> None:
    """Ask the real server with this pin; None is the right one."""
    served = sources(folder)
    own = ensure_certificate(served.folder.certificate, "Kinoswarm coordinator", ["127.0.0.1"])

    async def run() -> None:
        server = _server(served, CoordinatorSettings())
        bound = bound_socket("127.0.0.1", 0, "")
        bound.listen()
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"
        try:
            store = BlobStore(folder / "ours")
            async with HttpSource(url, store, own.sha256 if pin is None else pin) as source:
                await work(source)
        finally:
            server.should_exit = True
            await serving

    asyncio.run(run())


def test_a_pinned_certificate_is_enough(tmp_path: Path) -> None:
    async def ask(source: HttpSource) -> None:
        assert await source.ask(b"not an envelope")

    over_tls(tmp_path, None, ask)


def test_another_certificate_is_told_from_the_pinned_one(tmp_path: Path) -> None:
    async def ask(source: HttpSource) -> None:
        with pytest.raises(HashMismatch, match="somebody stands in between"):
            await source.ask(b"hello")

    over_tls(tmp_path, "0" * 64, ask)


def test_without_a_pin_a_certificate_that_no_ca_signed_is_refused(tmp_path: Path) -> None:
    async def ask(source: HttpSource) -> None:
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            await source.ask(b"hello")

    over_tls(tmp_path, "", ask)


def test_a_certificate_stays_the_same_over_restarts_and_covers_names(tmp_path: Path) -> None:
    path = tmp_path / "web.crt"
    first = ensure_certificate(path, "x", ["example.org", "::1", "192.0.2.7"])
    assert ensure_certificate(path, "x", ["other.example"]) == first
    assert len(first.sha256) == 64
    assert (path.with_suffix(".key").stat().st_mode & 0o777) == 0o600
