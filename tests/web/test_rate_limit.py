"""How often one client may ask, with time as a number; and the answer over HTTP."""

import asyncio
from pathlib import Path

import httpx
import pytest
from web.served import sources

from kinoswarm_coordinator.web.app import create_app
from kinoswarm_coordinator.web.bounds import MAX_BODY_BYTES
from kinoswarm_network.rate_limit import RateLimit


def test_a_burst_is_allowed_then_the_rate() -> None:
    limit = RateLimit(rate=2.0, burst=3)
    assert [limit.wait_s("198.51.100.1", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert limit.wait_s("198.51.100.1", 0.5) == 0.0
    assert limit.wait_s("198.51.100.1", 0.5) > 0


def test_clients_do_not_pay_for_each_other() -> None:
    limit = RateLimit(rate=1.0, burst=1)
    assert limit.wait_s("198.51.100.1", 0.0) == 0.0
    assert limit.wait_s("198.51.100.2", 0.0) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:198.51.100.1", "198.51.100.1", True),
        ("testclient", "other", False),
    ],
)
def test_who_counts_as_one_client(one: str, other: str, same: bool) -> None:
    limit = RateLimit(rate=1.0, burst=1)
    assert limit.wait_s(one, 0.0) == 0.0
    assert (limit.wait_s(other, 0.0) > 0) == same


def test_a_clock_that_steps_back_gives_nothing_away() -> None:
    limit = RateLimit(rate=1.0, burst=1)
    assert limit.wait_s("198.51.100.1", 100.0) == 0.0
    assert limit.wait_s("198.51.100.1", 50.0) == 1.0


def test_a_flood_of_clients_keeps_the_table_bounded() -> None:
    limit = RateLimit(rate=1.0, burst=1)
    for number in range(30_000):
        limit.wait_s(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert len(limit._buckets) <= 20_000


def test_too_many_requests_and_too_large_bodies_are_told_so(tmp_path: Path) -> None:
    async def run() -> list[httpx.Response]:
        app = create_app(sources(tmp_path), limit=RateLimit(rate=0.1, burst=2))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            answers = [await client.get("/api/v1/status") for _ in range(3)]
            answers.append(await client.get("/healthz"))
            large = b"x" * (MAX_BODY_BYTES + 1)
            answers.append(await client.request("GET", "/healthz", content=large))
            return answers

    first, second, third, health, large = asyncio.run(run())
    assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
    assert third.headers["content-type"] == "application/problem+json"
    assert int(third.headers["retry-after"]) >= 1
    assert "ask again in" in third.json()["detail"]
    assert health.status_code == 200
    assert large.status_code == 413


def test_control_requests_have_a_limit_of_their_own_and_count_as_traffic(tmp_path: Path) -> None:
    served = sources(tmp_path)

    async def run() -> list[httpx.Response]:
        app = create_app(served, control_limit=RateLimit(rate=0.1, burst=1))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            answers = [await client.post("/kinoswarm/1/control", content=b"x" * 7) for _ in "ab"]
            answers.append(await client.get(f"/kinoswarm/1/blobs/{'0' * 64}"))
            answers.append(await client.get("/api/v1/status"))
            return answers

    first, second, blob, status = asyncio.run(run())
    assert (first.status_code, second.status_code) == (200, 429)
    assert (blob.status_code, status.status_code) == (404, 200)
    presence = served.service.presence
    assert presence.http_bytes_down == 7
    sent = sum(len(answer.content) for answer in (first, second, blob))
    assert presence.http_bytes_up == sent
