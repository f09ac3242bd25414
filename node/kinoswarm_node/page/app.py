"""The local page's HTTP: routes, headers, the way in. Owns no decision about who may (guard.py) nor what is shown."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from kinoswarm_node.page.guard import COOKIE, Asked, Guard, Refusal
from kinoswarm_node.page.source import PageSource
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import LocalError, MalformedBytes

MAX_BODY_BYTES = 4096
_ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Next = Callable[[Request], Awaitable[Response]]


class PauseBody(msgspec.Struct, forbid_unknown_fields=True):
    minutes: float | None = None


class IdentityBody(msgspec.Struct, forbid_unknown_fields=True):
    passphrase: str


def create_app(source: PageSource, guard: Guard, secure: bool) -> Starlette:
    """The page for one node; `secure` when it is served over TLS."""

    async def watch_door(request: Request, call_next: Next) -> Response:
        entering = request.url.path == "/enter"
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.method, headers, request.cookies)
        refusal = guard.refusal_of_host(headers) if entering else guard.refusal(asked)
        response = _refused(refusal) if refusal else await call_next(request)
        response.headers.update(_HEADERS)
        return response

    async def enter(request: Request) -> Response:
        token = request.query_params.get("token", "")
        if not guard.knows(token):
            return _refused(Refusal(401, "open the address that `kinoswarm page` prints"))
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return response

    return Starlette(
        routes=[
            Route("/enter", enter),
            Route("/", _asset("page.html", "text/html")),
            *(Route(f"/{name}", _asset(name, kind)) for name, kind in _ASSETS.items()),
            *_reading(source),
            *_changing(source),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=watch_door)],
    )


def _reading(source: PageSource) -> list[Route]:
    def answer(ask: Callable[[], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            return _json(await run_in_threadpool(ask))

        return handle

    async def clip(request: Request) -> Response:
        path = source.sample(request.path_params["name"])
        return FileResponse(path) if path else _refused(Refusal(404, "there is no such clip"))

    return [
        Route("/api/now", answer(source.now)),
        Route("/api/loss", answer(source.loss)),
        Route("/api/history", answer(source.history)),
        Route("/api/log", answer(source.log)),
        Route("/api/samples", answer(source.samples)),
        Route("/samples/{name}", clip),
    ]


def _changing(source: PageSource) -> list[Route]:
    def carry_out(
        kind: Any, change: Callable[[Any], Any]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            try:
                body = decode_json(await _body(request), kind)
                return _json(await run_in_threadpool(change, body))
            except (LocalError, MalformedBytes) as error:
                return _refused(Refusal(400, str(error)))

        return handle

    post = ["POST"]
    return [
        Route("/api/pause", carry_out(PauseBody, lambda b: source.pause(b.minutes)), methods=post),
        Route("/api/resume", carry_out(dict, lambda b: source.resume()), methods=post),
        Route("/api/limits", carry_out(dict[str, Any], source.change_limits), methods=post),
        Route(
            "/api/identity",
            carry_out(IdentityBody, lambda b: source.identity(b.passphrase)),
            methods=post,
        ),
    ]


async def _body(request: Request) -> bytes:
    """The body, read no further than its bound. Raises LocalError beyond it."""
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > MAX_BODY_BYTES:
            raise LocalError(f"a request of more than {MAX_BODY_BYTES} bytes")
    return raw


def _asset(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    text = (files("kinoswarm_node.page") / "assets" / name).read_text(encoding="utf-8")

    async def handle(request: Request) -> Response:
        return Response(text, media_type=kind)

    return handle


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _refused(refusal: Refusal) -> Response:
    raw = msgspec.json.encode({"problem": refusal.sentence})
    return Response(raw, status_code=refusal.status, media_type="application/json")
