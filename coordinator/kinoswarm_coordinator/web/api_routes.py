"""The public API: what programs ask. Owns these routes and their bounds; everything is read-only."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import Response

from kinoswarm_coordinator import queries
from kinoswarm_coordinator.leaders import AccountStory, Leader
from kinoswarm_coordinator.views import ClusterView, ReleaseView, SwarmView
from kinoswarm_coordinator.web import api_examples as examples
from kinoswarm_coordinator.web.answering import CORS, answer_json
from kinoswarm_coordinator.web.api_schema import answers, octets, problem_answer
from kinoswarm_coordinator.web.head_route import HeadRoute
from kinoswarm_coordinator.web.health import Health
from kinoswarm_coordinator.web.problems import problem
from kinoswarm_coordinator.web.snapshots import Snapshots, tag_of
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_coordinator.web.viewers import address_of, event_stream

_COME_BACK_S = 15
_PEER = r"^[1-9A-HJ-NP-Za-km-z]{1,64}$"
Peer = Annotated[str, PathParameter(pattern=_PEER, description="A node's id.")]
Cluster = Annotated[int, PathParameter(ge=0, le=10_000, description="Number of a cluster.")]
Version = Annotated[int, PathParameter(ge=1, le=1_000_000, description="Version of a release.")]
Limit = Annotated[int, Query(ge=1, le=queries.MAX_PIECE, description="Entries at most.")]
After = Annotated[
    str, Query(max_length=64, pattern=r"^[1-9A-HJ-NP-Za-km-z]*$", description="`next` of a piece.")
]
Before = Annotated[int | None, Query(ge=0, le=2**53, description="`next` of a piece.")]


def api_routes(sources: WebSources, snapshots: Snapshots) -> APIRouter:
    """Routes under `/api/v1`; fields are added over time, never changed."""
    router = APIRouter(prefix="/api/v1", route_class=HeadRoute)
    _add_overview(router, sources, snapshots)
    _add_actions(router, sources)
    _add_lists(router, sources)
    _add_parts(router, sources, snapshots)
    _add_events(router, snapshots)
    return router


def _add_overview(router: APIRouter, sources: WebSources, snapshots: Snapshots) -> None:
    @router.get("/status", tags=["swarm"], responses=answers(SwarmView, examples.STATUS))
    async def status(request: Request) -> Response:
        """The swarm at this moment. The ETag leaves the clock out."""
        newest = snapshots.newest()
        return answer_json(request, newest.view, newest.tag)

    @router.get("/history", tags=["swarm"], responses=answers(queries.History, examples.HISTORY))
    async def history(request: Request) -> Response:
        """Decided work over time: by the minute while the swarm is young, then by the hour, then by the day."""
        return answer_json(request, snapshots.newest().history)

    @router.get("/health", tags=["swarm"], responses=answers(Health, examples.HEALTH))
    async def health(request: Request) -> Response:
        """Checks of what keeps the swarm going, and the worst of their states."""
        return answer_json(request, sources.health())


def _add_actions(router: APIRouter, sources: WebSources) -> None:
    @router.get(
        "/actions", tags=["swarm"], responses=answers(list[queries.ActionView], examples.ACTIONS)
    )
    async def actions(request: Request) -> Response:
        """What the swarm's operators did, newest first: every action is in the signed log."""
        return answer_json(request, sources.actions())

    @router.get(
        "/log/head",
        tags=["swarm"],
        responses=octets("A signed envelope."),
        response_class=Response,
    )
    async def log_head() -> Response:
        """Where the event log ended when the coordinator last signed it: an envelope, see docs/protocol.md."""
        raw = sources.log_head()
        if not raw:
            return problem(HTTPStatus.NOT_FOUND, "no head of the log is signed yet")
        return Response(raw, media_type="application/octet-stream", headers=CORS)


def _add_lists(router: APIRouter, sources: WebSources) -> None:
    @router.get("/nodes", tags=["nodes"], responses=answers(queries.NodesPiece, examples.NODES))
    async def nodes(request: Request, after: After = "", limit: Limit = 100) -> Response:
        """Volunteers in the order of their ids, in pieces."""
        return answer_json(request, sources.nodes(after, limit))

    @router.get(
        "/verdicts", tags=["verdicts"], responses=answers(queries.VerdictsPiece, examples.VERDICTS)
    )
    async def verdicts(request: Request, before: Before = None, limit: Limit = 50) -> Response:
        """The verification log, newest first, in pieces."""
        return answer_json(request, sources.verdicts(before, limit))

    @router.get(
        "/ledger", tags=["verdicts"], responses=answers(queries.LedgerPiece, examples.LEDGER)
    )
    async def ledger(request: Request, before: Before = None, limit: Limit = 50) -> Response:
        """Credit for accepted training, line by line, newest first, in pieces."""
        return answer_json(request, sources.ledger_piece(before, limit))

    @router.get("/leaderboard", tags=["nodes"], responses=answers(list[Leader], examples.LEADERS))
    async def leaderboard(request: Request) -> Response:
        """Who contributed most accepted training, by account; at most a hundred."""
        return answer_json(request, sources.leaders())

    @router.get(
        "/accounts/{account}",
        tags=["nodes"],
        responses=answers(AccountStory, examples.ACCOUNT, 404),
    )
    async def account(request: Request, account: Peer) -> Response:
        """One account, and what each of its machines earned for it."""
        story = sources.account(account)
        if story is None:
            return problem(HTTPStatus.NOT_FOUND, "no machine ever counted for such an account")
        return answer_json(request, story)

    @router.get(
        "/nodes/{peer}", tags=["nodes"], responses=answers(queries.NodeStory, examples.NODE, 404)
    )
    async def node(request: Request, peer: Peer) -> Response:
        """One volunteer: now, in sum, and its latest verdicts."""
        story = sources.node(peer)
        if story is None:
            return problem(HTTPStatus.NOT_FOUND, "no such node ever joined this swarm")
        return answer_json(request, story)


def _add_parts(router: APIRouter, sources: WebSources, snapshots: Snapshots) -> None:
    @router.get(
        "/clusters", tags=["swarm"], responses=answers(list[ClusterView], [examples.CLUSTER])
    )
    async def clusters(request: Request) -> Response:
        """All clusters with their experts."""
        return answer_json(request, snapshots.newest().view.clusters)

    @router.get(
        "/clusters/{cluster}", tags=["swarm"], responses=answers(ClusterView, examples.CLUSTER, 404)
    )
    async def cluster(request: Request, cluster: Cluster) -> Response:
        """One cluster with its expert."""
        found = snapshots.newest().view.clusters
        if cluster >= len(found):
            return problem(HTTPStatus.NOT_FOUND, f"clusters are numbered 0 to {len(found) - 1}")
        return answer_json(request, found[cluster])

    @router.get(
        "/releases", tags=["releases"], responses=answers(list[ReleaseView], [examples.RELEASE])
    )
    async def releases(request: Request) -> Response:
        """All releases, oldest first."""
        shown = snapshots.newest().view.releases
        return answer_json(request, shown, tag_of(shown))

    @router.get(
        "/releases/{version}",
        tags=["releases"],
        responses=answers(ReleaseView, examples.RELEASE, 404),
    )
    async def release(request: Request, version: Version) -> Response:
        """One release."""
        found = [r for r in snapshots.newest().view.releases if r.version == version]
        if not found:
            return problem(HTTPStatus.NOT_FOUND, f"there is no release {version}")
        return answer_json(request, found[0])

    @router.get(
        "/releases/{version}/manifest",
        tags=["releases"],
        responses=octets("A signed envelope."),
        response_class=Response,
    )
    async def manifest(version: Version) -> Response:
        """The signed table of contents: an envelope of the coordinator's, see docs/protocol.md."""
        raw = await asyncio.to_thread(sources.release_manifest, version)
        if raw is None:
            return problem(HTTPStatus.NOT_FOUND, f"release {version} has no signed manifest here")
        return Response(raw, media_type="application/octet-stream", headers=CORS)


def _add_events(router: APIRouter, snapshots: Snapshots) -> None:
    stream = {"description": "A stream of events.", "content": {"text/event-stream": {}}}

    @router.get("/events", tags=["swarm"], responses={200: stream, 503: problem_answer()})
    async def events(request: Request) -> Response:
        """Server-sent events: `changed` with the new ETag of the status, at once and after every change."""
        too_many = snapshots.viewers.too_many(address_of(request))
        if too_many:
            detail = f"{too_many}; ask /api/v1/status now and then instead"
            return problem(
                HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": str(_COME_BACK_S)}
            )
        return event_stream(request, snapshots.viewers, _frames(snapshots), CORS)


async def _frames(snapshots: Snapshots) -> AsyncIterator[bytes]:
    """Ends when the client goes."""
    async for tag in snapshots.changes():
        yield f"event: changed\ndata: {tag}\n\n".encode() if tag else b": nothing new\n\n"
