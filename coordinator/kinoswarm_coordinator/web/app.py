"""The HTTP application: control, blobs, API, page. Owns routes, bounds and headers; holds no state of its own."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import msgspec
from fastapi import FastAPI, Request
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from kinoswarm_coordinator.web.page import Pages
from kinoswarm_coordinator.web.problems import http_error, invalid_request, problem
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MAX_CONTROL_FRAME

_STATIC = Path(__file__).parent / "static"
_LIVE_EVERY_S = 5.0
_FOREVER = "public, max-age=31536000, immutable"
_OCTETS = "application/octet-stream"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
BlobName = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{64}$", description="Blob id.")]
Version = Annotated[int, PathParameter(ge=1, le=1_000_000, description="Version of a release.")]


def create_app(sources: WebSources) -> FastAPI:
    """The application over these sources."""
    app = FastAPI(title="Kinoswarm coordinator", version="1", docs_url=None, redoc_url=None)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid_request)
    app.middleware("http")(_with_headers)
    _add_network_routes(app, sources)
    _add_api_routes(app, sources)
    _add_page_routes(app, sources)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    return app


async def _with_headers(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _add_network_routes(app: FastAPI, sources: WebSources) -> None:
    """The second way for nodes: the same envelopes and blobs as over libp2p."""

    @app.post("/kinoswarm/1/control", include_in_schema=False)
    async def control(request: Request) -> Response:
        raw = await _bounded_body(request, MAX_CONTROL_FRAME)
        if raw is None:
            return problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_CONTROL_FRAME} bytes"
            )
        return Response(await sources.control(raw), media_type=_OCTETS)

    @app.get("/kinoswarm/1/blobs/{blob}/manifest", tags=["blobs"])
    async def blob_manifest(blob: BlobName) -> Response:
        raw = sources.manifest_bytes(BlobId(blob))
        if raw is None:
            return problem(HTTPStatus.NOT_FOUND, f"no blob {blob[:12]}… here")
        return Response(raw, media_type=_OCTETS, headers={"Cache-Control": _FOREVER})

    @app.get("/kinoswarm/1/blobs/{blob}", tags=["blobs"])
    async def blob_data(blob: BlobName) -> Response:
        path = sources.blob_path(BlobId(blob))
        if path is None:
            return problem(HTTPStatus.NOT_FOUND, f"no blob {blob[:12]}… here")
        headers = {"Cache-Control": _FOREVER, "ETag": f'"{blob}"'}
        return FileResponse(path, media_type=_OCTETS, headers=headers)


def _add_api_routes(app: FastAPI, sources: WebSources) -> None:
    @app.get("/api/v1/status", tags=["swarm"])
    async def status(request: Request) -> Response:
        """The swarm at this moment."""
        return _json(request, sources.view())

    @app.get("/api/v1/releases", tags=["swarm"])
    async def releases(request: Request) -> Response:
        """All releases, oldest first."""
        return _json(request, sources.view().releases)

    @app.get("/api/v1/events", tags=["swarm"])
    async def events() -> StreamingResponse:
        """Server-sent events: one `changed` after every change of what the page shows."""
        return StreamingResponse(
            _changes(sources),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @app.get("/healthz", include_in_schema=False)
    async def healthy() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", include_in_schema=False)
    async def ready() -> PlainTextResponse:
        return PlainTextResponse("ready\n")

    @app.get("/invite.txt", include_in_schema=False)
    async def invite() -> PlainTextResponse:
        return PlainTextResponse(sources.invite + "\n")


def _add_page_routes(app: FastAPI, sources: WebSources) -> None:
    pages = Pages()

    @app.get("/", include_in_schema=False)
    async def overview() -> HTMLResponse:
        html = pages.overview(sources.view(), sources.invite)
        return HTMLResponse(html, headers={"Cache-Control": "no-store"})

    @app.get("/releases/{version}/{name:path}", include_in_schema=False)
    async def release_file(version: Version, name: str) -> Response:
        path = sources.release_file(version, name)
        if path is None:
            return problem(HTTPStatus.NOT_FOUND, f"release {version} has no such file")
        return FileResponse(path, headers={"Cache-Control": _FOREVER})


async def _bounded_body(request: Request, limit: int) -> bytes | None:
    """The body, or None as soon as it is larger than `limit`."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            return None
    return bytes(body)


def _json(request: Request, value: object) -> Response:
    """JSON with an ETag over what is shown, the clock left out."""
    raw = msgspec.json.encode(value)
    tag = f'"{hashlib.sha256(_without_clock(raw)).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(raw, media_type="application/json", headers=headers)


def _without_clock(raw: bytes) -> bytes:
    decoded = msgspec.json.decode(raw)
    if isinstance(decoded, dict):
        decoded.pop("now_ms", None)
    return msgspec.json.encode(decoded)


async def _changes(sources: WebSources) -> AsyncIterator[bytes]:
    """Ends when the client goes; a beat every few seconds keeps proxies from closing the stream."""
    while True:
        yield b"event: changed\ndata: {}\n\n"
        await sources.next_change(_LIVE_EVERY_S)
