"""How often the view is made, when its tag changes, and what a listener hears; on a clock made by hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from fastapi import Request
from web.served import sources

from kinoswarm_coordinator.web import snapshots as snapshots_module
from kinoswarm_coordinator.web.app import create_app
from kinoswarm_coordinator.web.snapshots import FRESH_S, Snapshots
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_coordinator.web.viewers import Viewers, address_of


class Clock:
    """Seconds, moved by the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def served(tmp_path: Path) -> WebSources:
    return sources(tmp_path)


def test_many_askers_share_one_view(served: WebSources) -> None:
    clock = Clock()
    shared = Snapshots(served, clock)
    first = shared.newest()
    clock.now += FRESH_S / 2
    assert shared.newest() is first
    clock.now += FRESH_S
    assert shared.newest() is not first


def test_the_tag_changes_with_what_is_shown_and_not_with_the_clock(served: WebSources) -> None:
    clock = Clock()
    shared = Snapshots(served, clock)
    before = shared.newest()
    served.service.now_ms = lambda now=before.view.now_ms: now + 1_000
    clock.now += 1
    later = shared.newest()
    assert later.view.now_ms != before.view.now_ms
    assert later.tag == before.tag
    served.service.presence.bytes_up += 1
    clock.now += 1
    assert shared.newest().tag != before.tag


def listening(served: WebSources, listen: Callable[[Snapshots], Awaitable[list[str]]]) -> list[str]:
    async def run() -> list[str]:
        return await listen(Snapshots(served, asyncio.get_running_loop().time))

    return asyncio.run(run())


def test_a_listener_hears_the_tag_at_once_and_after_a_change(
    served: WebSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots_module, "FRESH_S", 0.001)
    monkeypatch.setattr(snapshots_module, "BEAT_S", 0.01)

    async def listen(shared: Snapshots) -> list[str]:
        stream = shared.changes()
        heard = [await anext(stream), await anext(stream)]
        served.service.presence.bytes_up += 1
        heard.append(await anext(stream))
        await stream.aclose()
        return heard

    first, quiet, changed = listening(served, listen)
    assert first
    assert quiet == ""
    assert changed not in ("", first)


def test_one_address_can_not_keep_the_others_out() -> None:
    async def run() -> None:
        viewers, ended = Viewers(most=5, most_per_address=3), asyncio.Event()

        async def frames() -> AsyncIterator[bytes]:
            yield b"first"
            await ended.wait()

        async def opened(address: str) -> AsyncIterator[bytes]:
            stream = viewers.watching(address, frames())
            assert await anext(stream) == b"first"
            return stream

        house = [await opened("192.0.2.1") for _ in range(3)]
        assert viewers.too_many("192.0.2.1") == "3 streams are open from your address"
        late = viewers.watching("192.0.2.1", frames())
        assert await anext(late, None) is None, (
            "it passed the check in a burst, before these counted"
        )
        house += [await opened("192.0.2.2") for _ in range(2)]
        assert viewers.too_many("192.0.2.3") == "5 viewers are connected"
        for stream in house:
            await stream.aclose()
        assert viewers.number == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_a_household_counts_as_one_address(host: str, counted: str) -> None:
    scope = {"type": "http", "client": (host, 1), "headers": []}
    assert address_of(Request(scope)) == counted


def test_head_of_a_stream_holds_no_place(served: WebSources) -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(served))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            return await client.head("/api/v1/events")

    answer = asyncio.run(ask())  # a stream would not end
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == b""


def test_a_full_house_is_told_to_come_back(
    served: WebSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Viewers, "too_many", lambda self, address: "everybody is here")

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(served))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            return await client.get("/api/v1/events")

    answer = asyncio.run(ask())
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"] == "application/problem+json"
