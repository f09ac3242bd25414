"""PUT of a contribution's blob, chunk by chunk and resumable. Owns these routes; Uploads decides.

No body is read before it is known that somebody waits for it.
"""

from collections.abc import Awaitable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from fastapi.responses import Response

from kinoswarm_coordinator.uploads import Uploads
from kinoswarm_coordinator.web.bodies import bounded_body, octets_answer, too_large
from kinoswarm_coordinator.web.problems import problem
from kinoswarm_protocol.codec import encode
from kinoswarm_protocol.errors import Code, KinoswarmError, LocalError, RemoteError
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.limits import CHUNK_BYTES, MAX_MANIFEST_BYTES
from kinoswarm_protocol.uploads import UploadState

_LeaseName = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{32}$")]
_BlobName = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{64}$")]
_Index = Annotated[int, PathParameter(ge=0, le=2**40)]

_STATUS_BY_CODE = {
    Code.UNKNOWN_LEASE: HTTPStatus.FORBIDDEN,
    Code.NOT_FOUND: HTTPStatus.CONFLICT,
    Code.OVERSIZE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}


def upload_routes(uploads: Uploads) -> APIRouter:
    """What is here already, the manifest, the chunks."""
    router = APIRouter(prefix="/kinoswarm/1/uploads/{lease}/{blob}", include_in_schema=False)

    @router.get("")
    async def progress(lease: _LeaseName, blob: _BlobName) -> Response:
        return await _state_of(uploads.progress(LeaseId(lease), BlobId(blob)))

    @router.put("/manifest")
    async def manifest(lease: _LeaseName, blob: _BlobName, request: Request) -> Response:
        try:
            if not await uploads.wants(LeaseId(lease), BlobId(blob)):
                return await _state_of(uploads.progress(LeaseId(lease), BlobId(blob)))
        except KinoswarmError as error:
            return _refused(error)
        raw = await bounded_body(request, MAX_MANIFEST_BYTES)
        if raw is None:
            return too_large(MAX_MANIFEST_BYTES)
        return await _state_of(uploads.take_manifest(LeaseId(lease), BlobId(blob), raw))

    @router.put("/{index}")
    async def chunk(
        lease: _LeaseName, blob: _BlobName, index: _Index, request: Request
    ) -> Response:
        try:
            if not await uploads.wants(LeaseId(lease), BlobId(blob)):
                return Response(status_code=HTTPStatus.NO_CONTENT)
            data = await bounded_body(request, CHUNK_BYTES)
            if data is None:
                return too_large(CHUNK_BYTES)
            await uploads.take_chunk(LeaseId(lease), BlobId(blob), index, data)
        except KinoswarmError as error:
            return _refused(error)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return router


async def _state_of(asked: Awaitable[UploadState]) -> Response:
    try:
        state = await asked
    except KinoswarmError as error:
        return _refused(error)
    return octets_answer(encode(state))


def _refused(error: KinoswarmError) -> Response:
    """A full disk or a download held elsewhere is ours and passes; everything else is the sender's."""
    if isinstance(error, LocalError):
        detail = "the coordinator can't keep this now; try again later"
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
    assert isinstance(error, RemoteError)
    status = _STATUS_BY_CODE.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY)
    return problem(status, str(error))
