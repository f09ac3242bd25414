"""JSON answers of the public API. Owns their headers: ETag, caching, CORS for reading."""

import hashlib
from http import HTTPStatus

import msgspec
from fastapi import Request
from fastapi.responses import Response

CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "ETag"}


def answer_json(request: Request, shown: object, tag: str | None = None) -> Response:
    """`shown` as JSON, or 304 when the asker has it already. `tag` defaults to the hash of the body."""
    body = msgspec.json.encode(shown)
    name = tag or hashlib.sha256(body).hexdigest()[:32]
    headers = {"ETag": f'"{name}"', "Cache-Control": "no-cache", **CORS}
    if _knows(request.headers.get("if-none-match", ""), name):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def _knows(if_none_match: str, tag: str) -> bool:
    """Weak comparison over a list of tags (RFC 9110, section 13.1.2)."""
    tags = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return f'"{tag}"' in tags or "*" in tags
