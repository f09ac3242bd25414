"""Bodies of the nodes' own routes: bounded on the way in, never cached on the way out. Owns these two rules."""

from http import HTTPStatus

from fastapi import Request
from fastapi.responses import Response

from kinoswarm_coordinator.web.problems import problem

OCTETS = "application/octet-stream"


async def bounded_body(request: Request, limit: int) -> bytes | None:
    """The body, or None as soon as it is larger than `limit`."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            return None
    return bytes(body)


def too_large(limit: int) -> Response:
    """The answer to a body over `limit`."""
    return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {limit} bytes")


def octets_answer(data: bytes) -> Response:
    """An answer of this moment, for programs."""
    return Response(data, media_type=OCTETS, headers={"Cache-Control": "no-store"})
