"""Small answers beside pages and API: liveness, readiness, Prometheus, the invite, a badge."""

from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from kinoswarm_coordinator.web.answering import CORS
from kinoswarm_coordinator.web.head_route import HeadRoute
from kinoswarm_coordinator.web.metrics import metrics_of
from kinoswarm_coordinator.web.pictures import badge, qr_code
from kinoswarm_coordinator.web.problems import problem
from kinoswarm_coordinator.web.snapshots import Snapshots
from kinoswarm_coordinator.web.sources import WebSources

_SVG = "image/svg+xml"


def plain_routes(sources: WebSources, snapshots: Snapshots) -> APIRouter:
    """Small answers; none is part of the API."""
    router = APIRouter(include_in_schema=False, route_class=HeadRoute)
    code = qr_code(sources.invite)

    @router.get("/healthz")
    async def healthy() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @router.get("/readyz")
    async def ready() -> Response:
        if not snapshots.newest().view.clusters:
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "the event log has no founding yet")
        return PlainTextResponse("ready\n")

    @router.get("/metrics")
    async def metrics() -> Response:
        text = metrics_of(snapshots.newest().view, sources.health())
        return Response(text, media_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})

    @router.get("/invite.txt")
    async def invite() -> PlainTextResponse:
        return PlainTextResponse(sources.invite + "\n")

    @router.get("/badge.svg")
    async def swarm_badge() -> Response:
        headers = {"Cache-Control": "public, max-age=60", **CORS}
        return Response(badge(snapshots.newest().view), media_type=_SVG, headers=headers)

    @router.api_route("/newest.mp4", methods=["GET", "HEAD"])
    async def newest_clip() -> Response:
        path = _newest_clip(sources)
        if path is None:
            return problem(HTTPStatus.NOT_FOUND, "there is no release with clips yet", CORS)
        return FileResponse(path, headers={"Cache-Control": "public, max-age=60", **CORS})

    @router.get("/invite.svg")
    async def invite_code() -> Response:
        return Response(code, media_type=_SVG, headers={"Cache-Control": "no-cache"})

    return router


def _newest_clip(sources: WebSources) -> Path | None:
    """The first sample of the newest release that is laid out here."""
    for release in reversed(sources.service.journal.state.releases):
        clips = sorted(file.path for file in release.files if file.path.endswith(".mp4"))
        found = sources.release_file(release.version, clips[0]) if clips else None
        if found is not None and release.manifest is not None:
            return found
    return None
