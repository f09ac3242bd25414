"""The page, its own files, and the files of releases. Owns these routes and how long their answers may be kept."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, HTMLResponse, Response

from kinoswarm_coordinator.web.assets import load_assets
from kinoswarm_coordinator.web.network_routes import FOREVER
from kinoswarm_coordinator.web.page import Pages
from kinoswarm_coordinator.web.problems import problem
from kinoswarm_coordinator.web.snapshots import Snapshots
from kinoswarm_coordinator.web.sources import WebSources

Version = Annotated[int, PathParameter(ge=1, le=1_000_000, description="Version of a release.")]
_READ = ["GET", "HEAD"]


def page_routes(sources: WebSources, snapshots: Snapshots) -> APIRouter:
    """What browsers ask."""
    router = APIRouter(include_in_schema=False)
    assets = load_assets()
    pages = Pages(assets, sources.invite)

    @router.api_route("/", methods=_READ)
    async def overview() -> HTMLResponse:
        html = pages.overview(snapshots.newest())
        return HTMLResponse(html, headers={"Cache-Control": "no-store"})

    @router.api_route("/static/{digest}/{name}", methods=_READ)
    async def asset(digest: str, name: str) -> Response:
        found = assets.files.get(name) if digest == assets.digest else None
        if found is None:
            return problem(HTTPStatus.NOT_FOUND, "the page has no such file; load the page again")
        return Response(found.data, media_type=found.media_type, headers={"Cache-Control": FOREVER})

    @router.api_route("/releases/{version}/{name:path}", methods=_READ)
    async def release_file(version: Version, name: str) -> Response:
        path = sources.release_file(version, name)
        if path is None:
            return problem(HTTPStatus.NOT_FOUND, f"release {version} has no such file")
        return FileResponse(path, headers={"Cache-Control": FOREVER})

    return router
