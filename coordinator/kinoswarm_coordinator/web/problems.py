"""Errors over HTTP as problem documents (RFC 9457). Owns their form; texts come from where the error arose."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from kinoswarm_coordinator.web.headers import POLICY


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A problem document."""
    title = HTTPStatus(status).phrase
    return JSONResponse(
        {"type": "about:blank", "title": title, "status": status, "detail": detail},
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


def add_handlers(app: FastAPI) -> None:
    """Everything that goes wrong is answered as a problem document."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(Exception, _our_fault)


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework itself raises: unknown paths, wrong methods."""
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), dict(error.headers or {}))


async def _invalid_request(request: Request, error: Exception) -> Response:
    """A parameter of the wrong form."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{where}: {first['msg']}")


async def _our_fault(request: Request, error: Exception) -> Response:
    """A bug of ours: the server logs it with its trace, the asker learns nothing of our insides."""
    detail = "the coordinator made a mistake; its log says which. Try again later"
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail, POLICY)
