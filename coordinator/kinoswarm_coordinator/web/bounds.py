"""Bounds on what anybody may ask of the pages and the API: how often, and with how large a body. Plain ASGI.

The nodes' own routes (/kinoswarm/…) bound their bodies themselves, and only their control requests are counted: a chunk
of a blob is neither small nor rare.
"""

import math
from collections.abc import Callable
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from kinoswarm_coordinator.web.problems import problem
from kinoswarm_network.rate_limit import RateLimit

MAX_BODY_BYTES = 64 * 1024
_NODES_PREFIX = "/kinoswarm/"
_CONTROL = "/kinoswarm/1/control"
_ALWAYS = ("/healthz", "/readyz")


class Bounds:
    """Refuses what is too much, with a problem document that says when to come back."""

    def __init__(
        self,
        app: ASGIApp,
        limit: RateLimit | None,
        control_limit: RateLimit | None,
        clock: Callable[[], float],
    ) -> None:
        self._app = app
        self._limit = limit
        self._control_limit = control_limit
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        of_nodes = scope["path"].startswith(_NODES_PREFIX)
        if not of_nodes and _announced_body(scope) > MAX_BODY_BYTES:
            detail = f"a body may have {MAX_BODY_BYTES} bytes here"
            answer = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
            await answer(scope, receive, send)
            return
        wait_s = self._wait_s(scope)
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            detail = f"too many requests from your address; ask again in {seconds} s"
            answer = problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                detail,
                {"Retry-After": str(seconds), "Access-Control-Allow-Origin": "*"},
            )
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _wait_s(self, scope: Scope) -> float:
        client, limit = scope.get("client"), self._limit_of(scope["path"])
        if limit is None or client is None:
            return 0.0
        return limit.wait_s(client[0], self._clock())

    def _limit_of(self, path: str) -> RateLimit | None:
        if path == _CONTROL:
            return self._control_limit
        return None if path in _ALWAYS or path.startswith(_NODES_PREFIX) else self._limit


def _announced_body(scope: Scope) -> float:
    """Content-Length; a body without one counts as too large, except where there is none at all."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length")
    if length is not None:
        return int(length) if length.isdigit() else math.inf
    return math.inf if b"transfer-encoding" in headers else 0.0
