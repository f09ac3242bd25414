"""The public API: status, releases, live events, health. Owns these routes; everything is read-only."""

from collections.abc import AsyncIterator
from http import HTTPStatus

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from kinoswarm_coordinator.web.problems import problem
from kinoswarm_coordinator.web.snapshots import MAX_STREAMS, Snapshots, tag_of
from kinoswarm_coordinator.web.sources import WebSources

_COME_BACK_S = 15


def api_routes(sources: WebSources, snapshots: Snapshots) -> APIRouter:
    """What programs ask; `/api/v1` stays compatible: fields are added, never changed."""
    router = APIRouter()

    @router.get("/api/v1/status", tags=["swarm"])
    async def status(request: Request) -> Response:
        """The swarm at this moment. The ETag leaves the clock out."""
        newest = snapshots.newest()
        return _json(request, newest.view, newest.tag)

    @router.get("/api/v1/releases", tags=["swarm"])
    async def releases(request: Request) -> Response:
        """All releases, oldest first."""
        shown = snapshots.newest().view.releases
        return _json(request, shown, tag_of(shown))

    @router.get("/api/v1/events", tags=["swarm"])
    async def events() -> Response:
        """Server-sent events: `changed` with the new ETag of the status, at once and after every change."""
        if snapshots.num_streams >= MAX_STREAMS:
            detail = f"{MAX_STREAMS} viewers are connected; ask /api/v1/status now and then instead"
            return problem(
                HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": str(_COME_BACK_S)}
            )
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            _frames(snapshots), media_type="text/event-stream", headers=headers
        )

    @router.get("/healthz", include_in_schema=False)
    async def healthy() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @router.get("/readyz", include_in_schema=False)
    async def ready() -> Response:
        if not snapshots.newest().view.clusters:
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "the event log has no founding yet")
        return PlainTextResponse("ready\n")

    @router.get("/invite.txt", include_in_schema=False)
    async def invite() -> PlainTextResponse:
        return PlainTextResponse(sources.invite + "\n")

    return router


async def _frames(snapshots: Snapshots) -> AsyncIterator[bytes]:
    """Ends when the client goes."""
    async for tag in snapshots.changes():
        yield f"event: changed\ndata: {tag}\n\n".encode() if tag else b": nothing new\n\n"


def _json(request: Request, shown: object, tag: str) -> Response:
    headers = {
        "ETag": f'"{tag}"',
        "Cache-Control": "no-cache",
        "Access-Control-Allow-Origin": "*",
    }
    if _knows(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(msgspec.json.encode(shown), media_type="application/json", headers=headers)


def _knows(if_none_match: str, tag: str) -> bool:
    """Weak comparison over a list of tags (RFC 9110, section 13.1.2)."""
    tags = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return f'"{tag}"' in tags or "*" in tags
