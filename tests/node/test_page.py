"""The local page over HTTP: what it tells and changes, and the three doors that are closed to everybody else."""

import asyncio
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from node.scripted import NOW_MS, World

from kinoswarm_network.certificate import fingerprint_of
from kinoswarm_node.context import NodeContext
from kinoswarm_node.identity_backup import open_key
from kinoswarm_node.limits_file import LIVE
from kinoswarm_node.live_settings import LiveSettings
from kinoswarm_node.page.app import create_app
from kinoswarm_node.page.guard import COOKIE, MARK, Asked, Guard
from kinoswarm_node.page.server import own_names, serving_page
from kinoswarm_node.page.source import PageSource
from kinoswarm_node.page_address import read_address
from kinoswarm_node.settings import load_settings
from kinoswarm_node.swarm_folder import HistoryLine
from kinoswarm_protocol.errors import LocalError

TOKEN, HOST = "right-token", "127.0.0.1:7420"
OWN = {"origin": f"http://{HOST}", MARK: "1"}


def page(node: NodeContext) -> Any:
    return create_app(PageSource(node), Guard(TOKEN, [HOST], "http"), secure=False)


def ask(node: NodeContext, method: str, path: str, **given: Any) -> httpx.Response:
    """One request as the page's own browser would send it, but for what is given."""
    given = {"cookies": {COOKIE: TOKEN}, "headers": OWN, **given}
    base = f"http://{given.pop('host', HOST)}"
    cookies = given.pop("cookies")

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(page(node))
        async with httpx.AsyncClient(transport=transport, base_url=base, cookies=cookies) as client:
            return await client.request(method, path, **given)

    return asyncio.run(send())


@pytest.fixture
def node(tmp_path: Path) -> NodeContext:
    return World(tmp_path).node()


def test_now_tells_status_why_and_limits(node: NodeContext) -> None:
    told = ask(node, "GET", "/api/now").json()
    assert told["status"]["swarm_name"] == "Test swarm"
    assert told["why"]["next_step"] == "Nothing to do."
    assert set(told["limits"]) == set(LIVE)
    assert told["paused"] is False


def test_the_loss_of_the_segment_is_a_bounded_curve(node: NodeContext) -> None:
    from kinoswarm_node.status_board import MAX_POINTS

    world_segment = node.board
    for step in range(1, 3 * MAX_POINTS):
        world_segment._keep_loss(step, 1.0 / step)
    points = ask(node, "GET", "/api/loss").json()
    assert 10 < len(points) <= MAX_POINTS
    assert points == sorted(points)
    world_segment._keep_loss(5, 0.5)
    assert ask(node, "GET", "/api/loss").json()[-1] == [5, 0.5], "a resumed segment goes back"


def test_history_and_log_come_newest_first(node: NodeContext) -> None:
    for number in range(3):
        line = HistoryLine(
            at_ms=NOW_MS, lease_id=f"{number:032x}", state="accepted", code="accepted", sentence="x"
        )
        node.folder.close(line.lease_id, line)  # type: ignore[arg-type]
    log = b'{"event": "old", "timestamp": "2026-01-01T00:00:00Z"}\n{"torn\n{"event": "new"}\n'
    (node.settings.home / "node.log").write_bytes(log)
    history = ask(node, "GET", "/api/history").json()
    assert [line["lease_id"][-1] for line in history] == ["2", "1", "0"]
    assert ask(node, "GET", "/api/log").json() == ["new", "2026-01-01T00:00:00 old"]


def test_pausing_for_an_hour_and_going_on(node: NodeContext) -> None:
    assert ask(node, "POST", "/api/pause", json={"minutes": 60}).status_code == 200
    pause = node.wishes.paused(NOW_MS)
    assert pause is not None
    assert pause.until_ms is not None
    assert ask(node, "POST", "/api/resume", json={}).status_code == 200
    assert node.wishes.paused(NOW_MS) is None


def test_a_limit_counts_at_once_and_at_the_next_start(node: NodeContext) -> None:
    answer = ask(node, "POST", "/api/limits", json={"share_percent": 40, "on_battery": True})
    assert answer.status_code == 200
    assert node.live.rules().share == 0.4
    again = load_settings(home=node.settings.home)
    assert (again.share_percent, again.on_battery) == (40.0, True)
    assert load_settings(home=node.settings.home, share_percent=70.0).share_percent == 70.0


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/limits", {"share_percent": 400}, "'share_percent' = 400 is not allowed"),
        ("/api/limits", {"home": "/etc"}, "'home' can't be changed"),
        ("/api/limits", {"hours": "25:00"}, "is not allowed: Local hours"),
        ("/api/limits", [1], "Expected `object`"),
        ("/api/pause", {"minutes": -5}, "a pause lasts up to"),
        ("/api/pause", {"minutes": 1e12}, "a pause lasts up to"),
        ("/api/pause", {"other": 1}, "unknown field"),
        ("/api/identity", {"passphrase": "short"}, "at least 10 characters"),
        ("/api/limits", {"hours": "x" * 5000}, "more than 4096 bytes"),
    ],
)
def test_a_wrong_wish_is_explained_and_changes_nothing(
    node: NodeContext, path: str, body: Any, words: str
) -> None:
    before = node.live.now
    answer = ask(node, "POST", path, json=body)
    assert answer.status_code == 400
    assert words in answer.json()["problem"]
    assert node.live.now is before
    assert node.wishes.paused(NOW_MS) is None


def test_the_identity_leaves_only_under_its_passphrase(node: NodeContext) -> None:
    text = ask(node, "POST", "/api/identity", json={"passphrase": "four words are fine"}).json()
    assert node.key.seed.hex() not in text
    assert open_key(text, "four words are fine") == node.key


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/api/now", "/api/log", "/nothing"])
def test_nothing_is_told_to_a_stranger(node: NodeContext, path: str) -> None:
    assert ask(node, "GET", path, cookies={}).status_code == 401
    assert ask(node, "GET", path, cookies={COOKIE: "wrong"}).status_code == 401
    assert ask(node, "GET", path, host="rebound.example:7420").status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.example", MARK: "1"},
        {"origin": "null", MARK: "1"},
        {"origin": f"http://{HOST}"},
        {MARK: "1"},
    ],
)
def test_another_site_can_not_change_anything(node: NodeContext, headers: dict[str, str]) -> None:
    answer = ask(node, "POST", "/api/pause", json={}, headers=headers)
    assert answer.status_code == 403
    assert node.wishes.paused(NOW_MS) is None


def test_the_way_in_sets_a_strict_cookie_and_hides_the_token(node: NodeContext) -> None:
    answer = ask(node, "GET", f"/enter?token={TOKEN}", cookies={}, headers={})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    wrong = ask(node, "GET", "/enter?token=wrong", cookies={}, headers={})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    assert ask(node, "GET", f"/enter?token={TOKEN}", host="rebound.example").status_code == 421


def test_every_answer_forbids_frames_foreign_scripts_and_caches(node: NodeContext) -> None:
    for path in ("/", "/api/now", "/nothing"):
        headers = ask(node, "GET", path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"


@given(st.dictionaries(st.sampled_from(["host", "origin", MARK]), st.text(max_size=30)), st.text())
def test_no_guess_gets_in(headers: dict[str, str], token: str) -> None:
    guard = Guard(TOKEN, [HOST], "http")
    refused = guard.refusal(Asked("POST", headers, {COOKIE: token}))
    right = token == TOKEN and headers.get("host") == HOST
    assert (refused is None) == (
        right and headers.get("origin") == OWN["origin"] and MARK in headers
    )


# --- serving ------------------------------------------------------------------------------------


def served(node: NodeContext, use: Callable[[str], Any]) -> Any:
    async def scenario() -> Any:
        async with serving_page(node) as address:
            return await asyncio.to_thread(use, address)

    return asyncio.run(scenario())


def test_the_page_is_served_on_loopback_with_a_private_address(tmp_path: Path) -> None:
    node = World(tmp_path).node(page_port=7420)
    home = node.settings.home

    def use(address: str) -> httpx.Response:
        assert read_address(home) == (address, "")
        assert address.startswith("http://127.0.0.1:")
        return httpx.get(address, follow_redirects=True)

    answer = served(node, use)
    assert "My node" in answer.text
    assert stat.S_IMODE((home / "page.token").stat().st_mode) == 0o600
    with pytest.raises(LocalError, match="no page is served"):
        read_address(home)


def test_two_nodes_have_two_pages(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    one = World(tmp_path).node(page_port=7420)
    other = World(tmp_path / "b").node(page_port=7420)

    async def scenario() -> tuple[str, str]:
        async with serving_page(one) as first, serving_page(other) as second:
            return first, second

    first, second = asyncio.run(scenario())
    assert first.split("/enter")[0] != second.split("/enter")[0]


def test_beyond_this_machine_it_speaks_tls_with_a_fingerprint_to_compare(tmp_path: Path) -> None:
    node = World(tmp_path).node(page_port=7420, page_host="0.0.0.0")

    def use(address: str) -> None:
        shown, fingerprint = read_address(node.settings.home)
        assert shown == address
        url = httpx.URL(address)
        assert (url.scheme, url.host == "0.0.0.0") == ("https", False), "it can be opened as shown"
        certificate = ssl.get_server_certificate((url.host, url.port or 443))
        assert fingerprint_of(certificate.encode()) == fingerprint
        pinned = ssl.create_default_context(cadata=certificate)
        with httpx.Client(verify=pinned, follow_redirects=True) as browser:
            assert browser.get(url.copy_with(path="/api/now", query=None)).status_code == 401
            assert "My node" in browser.get(url).text
            assert browser.get(url.copy_with(path="/api/now", query=None)).status_code == 200
            renamed = browser.get(url, headers={"Host": f"evil.example:{url.port}"})
            assert renamed.status_code == 421

    served(node, use)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "192.0.2.7", "0.0.0.0", "::"])
def test_a_page_knows_its_own_names_and_no_other(host: str) -> None:
    names = own_names(host)
    assert not {"0.0.0.0", "::", "evil.example"} & set(names)
    assert (names == [host]) == (host == "192.0.2.7")
    assert ("localhost" in names) == (host != "192.0.2.7")


def test_a_page_that_is_off_listens_nowhere(tmp_path: Path) -> None:
    assert served(World(tmp_path).node(page_port=0), lambda address: address) == ""


@pytest.mark.parametrize("raw", [b"{", b"[1]", b'{"home": "/etc", "share_percent": 30.0}'])
def test_a_damaged_or_foreign_limits_file_does_not_spread(tmp_path: Path, raw: bytes) -> None:
    live = LiveSettings(load_settings(home=tmp_path))
    (tmp_path / "limits.json").write_bytes(raw)
    live.change({"idle_minutes": 7.0})
    assert load_settings(home=tmp_path).idle_minutes == 7.0
    assert load_settings(home=tmp_path).home == tmp_path
