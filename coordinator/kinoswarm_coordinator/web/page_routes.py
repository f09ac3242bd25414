"""Pages, their own files, and the files of releases. Owns these routes and how long their answers may be kept."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, HTMLResponse, Response

from kinoswarm_coordinator.web.answering import CORS
from kinoswarm_coordinator.web.api_routes import Before, Cluster, Peer
from kinoswarm_coordinator.web.assets import Assets, load_assets
from kinoswarm_coordinator.web.head_route import HeadRoute
from kinoswarm_coordinator.web.network_routes import FOREVER
from kinoswarm_coordinator.web.page import Pages, ReleaseFacts
from kinoswarm_coordinator.web.problems import problem
from kinoswarm_coordinator.web.rendered import Rendered
from kinoswarm_coordinator.web.snapshots import Snapshot, Snapshots
from kinoswarm_coordinator.web.sources import WebSources

Version = Annotated[int, PathParameter(ge=1, le=1_000_000, description="Version of a release.")]
_READ = ["GET", "HEAD"]
_A_DAY = "public, max-age=86400"
_VERDICTS = 50


def pages_of(sources: WebSources) -> Pages:
    """The live pages of this coordinator."""
    return Pages(
        load_assets(),
        sources.invite,
        has_frames=lambda cluster: sources.frames(cluster) is not None,
        is_kept=sources.is_kept,
        can_try=sources.desk is not None,
    )


def page_routes(sources: WebSources, snapshots: Snapshots, pages: Pages) -> APIRouter:
    """What browsers ask."""
    router = APIRouter(include_in_schema=False, route_class=HeadRoute)
    _add_plain_pages(router, pages, sources, snapshots)
    _add_pages_of_one(router, pages, sources, snapshots)
    _add_files(router, load_assets(), sources)
    return router


def _add_plain_pages(
    router: APIRouter, pages: Pages, sources: WebSources, snapshots: Snapshots
) -> None:
    rendered = Rendered(snapshots)

    @router.api_route("/", methods=_READ)
    async def overview() -> Response:
        return rendered.once("overview", pages.overview)

    @router.api_route("/nodes", methods=_READ)
    async def nodes() -> Response:
        return rendered.once("nodes", pages.nodes)

    @router.api_route("/releases", methods=_READ)
    async def releases() -> Response:
        return rendered.once("releases", pages.releases)

    @router.api_route("/join", methods=_READ)
    async def join() -> Response:
        return rendered.once("join", pages.join)

    @router.api_route("/leaderboard", methods=_READ)
    async def leaderboard() -> Response:
        return rendered.once(
            "leaderboard", lambda shown: pages.leaderboard(shown, sources.leaders())
        )

    @router.api_route("/health", methods=_READ)
    async def health() -> Response:
        return rendered.once(
            "health", lambda shown: pages.health(shown, sources.health(), sources.actions())
        )

    @router.api_route("/ledger", methods=_READ)
    async def ledger(before: Before = None) -> Response:
        return _page(pages.ledger(snapshots.newest(), sources.ledger_piece(before, _VERDICTS)))

    @router.api_route("/verdicts", methods=_READ)
    async def verdicts(before: Before = None) -> Response:
        return _page(pages.verdicts(snapshots.newest(), sources.verdicts(before, _VERDICTS)))


def _add_pages_of_one(
    router: APIRouter, pages: Pages, sources: WebSources, snapshots: Snapshots
) -> None:
    @router.api_route("/clusters/{cluster}", methods=_READ)
    async def cluster_page(cluster: Cluster) -> Response:
        shown = snapshots.newest()
        if cluster >= len(shown.view.clusters):
            return problem(HTTPStatus.NOT_FOUND, f"there is no cluster {cluster}")
        return _page(pages.cluster(shown, cluster))

    @router.api_route("/nodes/{peer}", methods=_READ)
    async def node_page(peer: Peer) -> Response:
        story = sources.node(peer)
        if story is None:
            return problem(HTTPStatus.NOT_FOUND, "no such node ever joined this swarm")
        return _page(pages.node(snapshots.newest(), story))

    @router.api_route("/accounts/{account}", methods=_READ)
    async def account_page(account: Peer) -> Response:
        story = sources.account(account)
        if story is None:
            return problem(HTTPStatus.NOT_FOUND, "no machine ever counted for such an account")
        return _page(pages.account(snapshots.newest(), story))

    @router.api_route("/releases/{version}", methods=_READ)
    async def release_page(version: Version) -> Response:
        shown = snapshots.newest()
        facts = release_facts(sources, shown, version)
        if facts is None:
            return problem(HTTPStatus.NOT_FOUND, f"there is no release {version}")
        return _page(pages.release(shown, facts))


def _add_files(router: APIRouter, assets: Assets, sources: WebSources) -> None:
    @router.api_route("/static/{digest}/{name}", methods=_READ)
    async def asset(digest: str, name: str) -> Response:
        found = assets.files.get(name) if digest == assets.digest else None
        if found is None:
            return problem(HTTPStatus.NOT_FOUND, "the page has no such file; load the page again")
        return Response(found.data, media_type=found.media_type, headers={"Cache-Control": FOREVER})

    @router.api_route("/snapshot/{path:path}", methods=_READ)
    async def copy_file(path: str) -> Response:
        found = sources.copy_file(path or "index.html")
        if found is None:
            return problem(
                HTTPStatus.NOT_FOUND, "the copy holds no such file; it may not be made yet"
            )
        return FileResponse(found, headers={"Cache-Control": "no-cache", **CORS})

    @router.api_route("/clusters/{cluster}/frames.png", methods=_READ)
    async def frames(cluster: Cluster) -> Response:
        path = sources.frames(cluster)
        if path is None:
            return problem(HTTPStatus.NOT_FOUND, f"there are no frames of cluster {cluster}")
        return FileResponse(path, headers={"Cache-Control": _A_DAY})

    @router.api_route("/releases/{version}/{name:path}", methods=_READ)
    async def release_file(version: Version, name: str) -> Response:
        path = sources.release_file(version, name)
        if path is None:
            return problem(HTTPStatus.NOT_FOUND, f"release {version} has no such file")
        return FileResponse(path, headers={"Cache-Control": FOREVER})


def release_facts(sources: WebSources, shown: Snapshot, version: int) -> ReleaseFacts | None:
    """What the page of a release shows; None for a version that is not published."""
    for release in shown.view.releases:
        if release.version == version and release.published:
            return ReleaseFacts(
                release=release,
                files=sources.release_files(version),
                card=sources.release_card(version),
            )
    return None


def _page(html: str) -> Response:
    return HTMLResponse(html, headers={"Cache-Control": "no-store"})
