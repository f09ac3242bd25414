"""The second way for nodes: the same envelopes and blobs as over libp2p. Owns these routes and their bounds."""

import asyncio
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, Response

from kinoswarm_coordinator.web.api_schema import octets
from kinoswarm_coordinator.web.bodies import OCTETS, bounded_body, octets_answer, too_large
from kinoswarm_coordinator.web.head_route import HeadRoute
from kinoswarm_coordinator.web.problems import problem
from kinoswarm_coordinator.web.shelved_answers import shelved_answer
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MAX_CONTROL_FRAME
from kinoswarm_protocol.manifest import decode_manifest

FOREVER = "public, max-age=31536000, immutable"
BlobName = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{64}$", description="Blob id.")]


def network_routes(sources: WebSources) -> APIRouter:
    """Control requests, manifests, blobs with ranges."""
    router = APIRouter(prefix="/kinoswarm/1", route_class=HeadRoute)

    @router.post("/control", include_in_schema=False)
    async def control(request: Request) -> Response:
        raw = await bounded_body(request, MAX_CONTROL_FRAME)
        if raw is None:
            return too_large(MAX_CONTROL_FRAME)
        host = request.client.host if request.client else ""
        return octets_answer(await sources.control(raw, host))

    @router.get(
        "/charter",
        tags=["swarm"],
        responses=octets("The charter with its amendments."),
        response_class=Response,
    )
    async def charter() -> Response:
        """The charter with all amendments, checkable from the founder's signatures alone."""
        headers = {"Cache-Control": "no-cache"}
        return Response(sources.charter_chain(), media_type=OCTETS, headers=headers)

    @router.get(
        "/blobs/{blob}/manifest",
        tags=["blobs"],
        responses=octets("The encoded manifest."),
        response_class=Response,
    )
    async def blob_manifest(blob: BlobName) -> Response:
        """Size and chunk hashes of a blob; its name is the hash of these bytes."""
        raw = await asyncio.to_thread(sources.manifest_bytes, BlobId(blob))
        if raw is None:
            return _no_blob(blob)
        return Response(raw, media_type=OCTETS, headers={"Cache-Control": FOREVER})

    @router.get(
        "/blobs/{blob}",
        tags=["blobs"],
        responses=octets("The whole blob.", ranges=True),
        response_class=Response,
    )
    async def blob_data(blob: BlobName, request: Request) -> Response:
        """A blob's bytes; answers Range."""
        headers = {"Cache-Control": FOREVER, "ETag": f'"{blob}"'}
        path = sources.blob_path(BlobId(blob))
        if path is not None:
            return FileResponse(path, media_type=OCTETS, headers=headers)
        raw = await asyncio.to_thread(sources.manifest_bytes, BlobId(blob))
        if raw is None:
            return _no_blob(blob)
        manifest = decode_manifest(BlobId(blob), raw)
        asked = request.headers.get("range")
        return shelved_answer(sources.store, BlobId(blob), manifest, asked, headers)

    return router


def _no_blob(blob: str) -> Response:
    detail = f"no blob {blob[:12]}… here; a release or a lookup names those that are"
    return problem(HTTPStatus.NOT_FOUND, detail)
