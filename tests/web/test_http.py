"""Routes, bounds, headers and escaping of the coordinator's HTTP side."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from protocol.samples import NODE, SWARM
from web.served import HOSTILE, sources

from kinoswarm_coordinator.events import ReleasesForgotten, VersionsForgotten
from kinoswarm_coordinator.fold import fold
from kinoswarm_coordinator.web.app import create_app
from kinoswarm_coordinator.web.assets import load_assets
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.limits import MAX_CONTROL_FRAME
from kinoswarm_protocol.manifest import decode_manifest
from kinoswarm_protocol.messages import REPLY, REQUEST, AskStatus, Refusal, Request
from kinoswarm_protocol.swarm_status import SwarmStatus

Asking = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> WebSources:
    return sources(tmp_path_factory.mktemp("swarm"))


@pytest.fixture
def ask(served: WebSources) -> Callable[[Asking], httpx.Response]:
    def once(asking: Asking) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(create_app(served))
            async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
                return await asking(client)

        return asyncio.run(run())

    return once


def get(path: str, **headers: str) -> Asking:
    return lambda client: client.get(path, headers=headers)


def test_the_page_shows_the_swarm_without_any_script_of_its_own(ask) -> None:
    answer = ask(get("/"))
    assert answer.status_code == 200
    assert "training: 1 segment under way" in answer.text
    assert "a hall of grey stone" in answer.text
    assert "held-out loss got worse by 50.00%" in answer.text
    assert re.findall(r"<script(?![^>]*\bsrc=)", answer.text) == []
    assert re.findall(r"\son\w+=|style=", answer.text) == []
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_other_sites_may_show_the_newest_releases_first_clip(ask, served: WebSources) -> None:
    clip = ask(get("/newest.mp4"))
    assert clip.content == served.release_file(2, "samples/sample-00.mp4").read_bytes()
    assert clip.headers["content-type"] == "video/mp4"
    assert clip.headers["access-control-allow-origin"] == "*"
    part = ask(get("/newest.mp4", Range="bytes=0-9"))
    assert (part.status_code, len(part.content)) == (206, 10)


def test_what_was_forgotten_is_said_to_be_and_no_dead_link_is_offered(tmp_path: Path) -> None:
    served = sources(tmp_path)
    journal = served.service.journal
    manifest = journal.state.releases[0].manifest
    assert manifest is not None
    fold(
        journal.state,
        [
            ReleasesForgotten(at_ms=1, versions=[1]),
            VersionsForgotten(at_ms=1, cluster=0, lineage=0, versions=[1]),
        ],
    )
    served.store.forget(manifest)
    app = create_app(served)

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        paths = [
            "/releases/1",
            "/releases/2",
            "/clusters/0",
            "/api/v1/releases",
            "/api/v1/clusters/0",
        ]
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            missing = await client.get("/api/v1/releases/1/manifest")
            assert missing.status_code == 404
            return [await client.get(path) for path in paths]

    old, new, cluster, releases, versions = asyncio.run(run())
    assert "files are no longer kept here" in old.text
    assert "/api/v1/releases/1/manifest" not in old.text
    assert "files are no longer kept here" not in new.text
    assert "/api/v1/releases/2/manifest" in new.text
    assert cluster.text.count("(no longer kept)") == 1
    assert [release["kept"] for release in releases.json()] == [False, True]
    assert [version["kept"] for version in versions.json()["versions"]] == [True, False, True]


def test_a_releases_page_shows_the_figures_of_its_own_versions(ask, served: WebSources) -> None:
    first = ask(get("/releases/1")).text
    view = served.view()
    release, cluster = view.releases[0], view.clusters[0]
    version = release.expert_versions[0]
    loss = next(v.heldout_loss for v in cluster.versions if v.version == version)
    assert version < cluster.versions[-1].version
    row = re.search(r'<a href="/clusters/0">.*?</tr>', first, re.DOTALL)[0]
    assert f'data-label="version" class="number">{version}<' in row
    assert f">{loss:.4f}<" in row
    assert f">{release.share_by_expert[0]:.0%}<" in row
    assert "The router names the right expert" in first


def test_hostile_names_are_escaped(ask) -> None:
    page = ask(get("/")).text
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_no_address_is_ever_shown(ask) -> None:
    for path in ("/", "/api/v1/status", "/api/v1/releases"):
        assert "203.0.113" not in ask(get(path)).text


def test_status_is_json_with_an_etag_that_ignores_the_clock(ask) -> None:
    first = ask(get("/api/v1/status"))
    assert first.json()["clusters"][0]["version"] == 2
    assert first.json()["nodes"][0]["step"] == 17
    again = ask(get("/api/v1/status", **{"If-None-Match": first.headers["etag"]}))
    assert again.status_code == 304
    assert again.content == b""


def test_status_names_who_trains_which_expert(ask) -> None:
    clusters = ask(get("/api/v1/status")).json()["clusters"]
    assert [cluster["trainers"] for cluster in clusters if cluster["training"]] == [[HOSTILE]]
    assert [cluster["trainers"] for cluster in clusters if not cluster["training"]] == [[]]


def test_the_charter_with_its_amendments_is_handed_to_anybody(ask, served: WebSources) -> None:
    answer = ask(get("/kinoswarm/1/charter"))
    assert answer.content == served.service.in_force.chain.raw
    assert answer.headers["cache-control"] == "no-cache"


def test_blobs_are_served_whole_and_in_ranges(ask, served: WebSources) -> None:
    blob = served.service.journal.state.releases[-1].files[0].blob
    manifest = decode_manifest(blob, ask(get(f"/kinoswarm/1/blobs/{blob}/manifest")).content)
    whole = ask(get(f"/kinoswarm/1/blobs/{blob}")).content
    assert len(whole) == manifest.size_bytes
    manifest.verify_chunk(0, whole)
    part = ask(get(f"/kinoswarm/1/blobs/{blob}", Range="bytes=10-19"))
    assert part.status_code == 206
    assert part.content == whole[10:20]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/kinoswarm/1/blobs/" + "0" * 64, 404),
        ("/kinoswarm/1/blobs/" + "0" * 64 + "/manifest", 404),
        ("/kinoswarm/1/blobs/../../key", 404),
        ("/kinoswarm/1/blobs/NOTHEX", 422),
        ("/releases/1/..%2f..%2fkey", 404),
        ("/releases/1/samples/..%2f..%2f..%2fkey", 404),
        ("/releases/99/samples/sample-00.mp4", 404),
        ("/releases/0/samples/sample-00.mp4", 422),
        ("/static/..%2fapp.py", 404),
        ("/static/0000000000000000/style.css", 404),
        ("/docs", 404),
        ("/nothing", 404),
    ],
)
def test_what_is_not_public_is_a_problem_document(ask, path: str, status: int) -> None:
    answer = ask(get(path))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_samples_of_a_release_are_served(ask, served: WebSources) -> None:
    (first, *_) = ask(get("/api/v1/releases")).json()[-1]["samples"]
    answer = ask(get(first["path"]))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "video/mp4"


def test_control_answers_a_signed_request_with_a_signed_reply(ask) -> None:
    request = Request(request_id="1" * 32, body=AskStatus())
    raw = seal(NODE, REQUEST, SWARM, request)
    answer = ask(lambda client: client.post("/kinoswarm/1/control", content=raw))
    reply = open_envelope(answer.content, REPLY, SWARM).body
    assert reply.request_id == "1" * 32
    assert isinstance(reply.body, SwarmStatus)


def test_bytes_that_are_no_request_get_a_refusal_with_a_code(ask) -> None:
    answer = ask(lambda client: client.post("/kinoswarm/1/control", content=b"\xc1"))
    body = open_envelope(answer.content, REPLY, SWARM).body.body
    assert isinstance(body, Refusal)
    assert body.code == "malformed"


def test_an_oversize_body_is_refused_while_it_is_read(ask) -> None:
    sent = 0

    async def endless():
        nonlocal sent
        for _ in range(100):
            sent += 64 * 1024
            yield b"x" * (64 * 1024)

    answer = ask(lambda client: client.post("/kinoswarm/1/control", content=endless()))
    assert answer.status_code == 413
    assert sent < MAX_CONTROL_FRAME + 3 * 64 * 1024


def test_the_page_names_its_files_by_their_hash_and_they_may_be_kept_forever(ask) -> None:
    paths = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', ask(get("/")).text))
    names = ("icon.svg", "live.js", "style.css", "charts.js", "uplot.js", "uplot.css")
    assert paths == {load_assets().address(name) for name in names}
    for path in paths:
        answer = ask(get(path))
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]


def test_every_answer_carries_the_policy(ask) -> None:
    for path in ("/", "/api/v1/status", "/nothing", "/healthz", load_assets().address("live.js")):
        answer = ask(get(path))
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/api/v1/status", "/healthz", "/newest.mp4"])
def test_head_is_answered_as_get_is(ask, path: str) -> None:
    """As `curl -I`, download managers and link checkers ask; a file's length is told without reading it."""
    full, head = ask(get(path)), ask(lambda client: client.head(path))
    assert head.status_code == full.status_code == 200
    for name in ("content-length", "content-type", "content-security-policy"):
        assert head.headers.get(name) == full.headers.get(name)


def test_head_is_no_way_to_post(ask) -> None:
    assert ask(lambda client: client.head("/kinoswarm/1/control")).status_code == 405


def test_a_wrong_method_is_a_problem_document_that_names_the_right_one(ask) -> None:
    answer = ask(lambda client: client.post("/api/v1/status"))
    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["allow"] == "GET"


def test_a_mistake_of_ours_tells_nothing_of_our_insides(served: WebSources) -> None:
    async def run() -> httpx.Response:
        def broken() -> str:
            raise RuntimeError("the secret path /home/somebody")

        app = create_app(replace(served, doing=broken))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            return await client.get("/api/v1/status")

    answer = asyncio.run(run())
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "secret" not in answer.text


def test_the_page_can_be_asked_for_its_head(ask) -> None:
    answer = ask(lambda client: client.head("/"))
    assert answer.status_code == 200
    assert answer.content == b""


def test_a_range_beyond_the_end_is_refused(ask, served: WebSources) -> None:
    blob = served.service.journal.state.releases[-1].files[0].blob
    answer = ask(get(f"/kinoswarm/1/blobs/{blob}", Range="bytes=99999999-"))
    assert answer.status_code == 416


@pytest.mark.parametrize("seen", ['W/"{}"', '"other", "{}"', "*"])
def test_any_form_of_a_known_tag_saves_the_body(ask, seen: str) -> None:
    tag = ask(get("/api/v1/releases")).headers["etag"].strip('"')
    assert ask(get("/api/v1/releases", **{"If-None-Match": seen.format(tag)})).status_code == 304


def test_the_schema_describes_the_api(ask) -> None:
    paths = ask(get("/openapi.json")).json()["paths"]
    assert {"/api/v1/status", "/api/v1/releases", "/api/v1/events"} <= set(paths)


def test_the_invite_is_there_to_copy(ask, served: WebSources) -> None:
    assert ask(get("/invite.txt")).text.strip() == served.invite


def test_liveness_and_readiness_answer(ask, tmp_path: Path) -> None:
    assert ask(get("/healthz")).text == "ok\n"
    assert ask(get("/readyz")).text == "ready\n"
