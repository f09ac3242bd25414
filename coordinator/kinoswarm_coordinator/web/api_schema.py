"""The API's own description. Owns how our types become OpenAPI schemas with examples; nothing is checked here.

FastAPI describes pydantic models only; our views are msgspec Structs, so that ten thousand of them cost little.
"""

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from msgspec import Struct

from kinoswarm_coordinator import leaders, queries, views
from kinoswarm_coordinator.try_queue import Wish
from kinoswarm_coordinator.web import health

_REF = "#/components/schemas/{name}"
_TYPES: list[type[Struct]] = [
    views.SwarmView,
    views.ClusterView,
    views.ReleaseView,
    queries.NodesPiece,
    queries.NodeStory,
    queries.VerdictsPiece,
    leaders.Leader,
    leaders.AccountStory,
    queries.ActionView,
    queries.LedgerPiece,
    queries.History,
    health.Health,
    Wish,
]
_PROBLEM = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_DESCRIPTION = (
    "Everything a swarm shows. Reading is open to every page (CORS); answers carry an ETag; errors are problem "
    "documents. Fields are added over time, never changed or taken away. No answer ever holds a volunteer's address."
)

Responses = dict[int | str, dict[str, Any]]


def answers(shown: type, example: object, *problems: int) -> Responses:
    """`responses=` of a route that answers `shown` as JSON."""
    schema = msgspec.json.schema_components([shown], ref_template=_REF)[0][0]
    body = {"schema": schema, "example": msgspec.to_builtins(example)}
    found: Responses = {
        200: {"description": "As it is now.", "content": {"application/json": body}},
        304: {"description": "Nothing changed since the ETag in If-None-Match."},
    }
    return found | {status: problem_answer() for status in (*problems, 429)}


def octets(what: str, *, ranges: bool = False) -> Responses:
    """`responses=` of a route that answers bytes; `ranges` where Range is answered."""
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    found: Responses = {
        200: {"description": what, "content": content},
        404: problem_answer(),
        429: problem_answer(),
    }
    if ranges:
        found[206] = {"description": "The asked range.", "content": content}
        found[416] = problem_answer()
    return found


def problem_answer() -> dict[str, Any]:
    """A response that is a problem document."""
    schema = {"$ref": _REF.format(name="Problem")}
    return {
        "description": "A problem document.",
        "content": {"application/problem+json": {"schema": schema}},
    }


def describe(app: FastAPI) -> None:
    """Let /openapi.json hold our own types."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=_DESCRIPTION, routes=app.routes
            )
            _, components = msgspec.json.schema_components(_TYPES, ref_template=_REF)
            kept = schema.setdefault("components", {}).setdefault("schemas", {})
            kept.update(components)
            kept["Problem"] = _PROBLEM
            for path in schema["paths"].values():
                for operation in path.values():
                    if "422" in operation["responses"]:
                        operation["responses"]["422"] = problem_answer()
            for unused in ("HTTPValidationError", "ValidationError"):
                kept.pop(unused, None)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
