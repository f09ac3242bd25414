"""The "try it" box: a prompt in, a clip of the newest release out. Owns its routes, its limit per client and its words.

These routes are there only where the operator switched the box on.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qs

import msgspec
from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from kinoswarm_coordinator.try_desk import TryDesk
from kinoswarm_coordinator.try_queue import Turned, Wish
from kinoswarm_coordinator.web import api_examples as examples
from kinoswarm_coordinator.web.answering import CORS, answer_json
from kinoswarm_coordinator.web.api_schema import Responses, answers, octets, problem_answer
from kinoswarm_coordinator.web.head_route import HeadRoute
from kinoswarm_coordinator.web.network_routes import FOREVER
from kinoswarm_coordinator.web.page import Pages
from kinoswarm_coordinator.web.problems import problem
from kinoswarm_coordinator.web.snapshots import BEAT_S, Snapshots
from kinoswarm_coordinator.web.viewers import Viewers, address_of, event_stream
from kinoswarm_network.rate_limit import RateLimit
from kinoswarm_protocol.limits import MAX_PROMPT

WishId = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{16}$", description="Id of a wish.")]
_GONE = "there is no such clip: only the last ones are kept, and a restart forgets who was waiting"
_FOREIGN = "this form was sent from another site; open this page itself and send it from there"
_READ = ["GET", "HEAD"]


class TryBody(BaseModel, extra="forbid"):
    """What to show."""

    prompt: str = Field(min_length=1, max_length=MAX_PROMPT, examples=["a hall of grey stone"])
    seed: int | None = Field(
        default=None, ge=0, lt=2**31, description="Equal seeds give equal clips; none draws one."
    )


@dataclass(kw_only=True)
class TryCounter:
    """Takes wishes at the limit's pace. `clock` counts seconds."""

    desk: TryDesk
    limit: RateLimit
    clock: Callable[[], float]
    viewers: Viewers = field(default_factory=Viewers)

    def ask(self, request: Request, prompt: str, seed: int | None) -> Wish | Response:
        """The wish, queued; or a problem document that says what to do."""
        wrong = self.desk.problem_with(prompt)
        if wrong:
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, wrong, CORS)
        client = address_of(request)
        wait_s = self.limit.wait_s(client, self.clock())
        if wait_s > 0:
            minutes = max(1, round(wait_s / 60))
            detail = f"that was your last clip for now; ask again in {minutes} min"
            return _later(HTTPStatus.TOO_MANY_REQUESTS, detail, int(wait_s) + 1)
        taken = self.desk.ask(prompt, seed, client)
        if isinstance(taken, Turned):
            return _later(HTTPStatus.TOO_MANY_REQUESTS, taken.sentence, taken.retry_after_s)
        return taken


def try_pages(counter: TryCounter, pages: Pages, snapshots: Snapshots) -> APIRouter:
    """What browsers ask; whole without JavaScript."""
    router, desk = APIRouter(include_in_schema=False, route_class=HeadRoute), counter.desk

    @router.api_route("/try", methods=_READ)
    async def form() -> Response:
        return _page(pages.try_it(snapshots.newest(), desk))

    @router.post("/try")
    async def send(request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return problem(HTTPStatus.FORBIDDEN, _FOREIGN)
        prompt, seed = _form(await request.body())
        taken = counter.ask(request, prompt, seed)
        if isinstance(taken, Wish):
            return RedirectResponse(f"/try/{taken.wish_id}", HTTPStatus.SEE_OTHER)
        detail = msgspec.json.decode(bytes(taken.body))["detail"]
        html = pages.try_it(snapshots.newest(), desk, prompt=prompt, problem=detail)
        kept = {k: v for k, v in taken.headers.items() if k == "retry-after"}
        return _page(html, taken.status_code, kept)

    @router.api_route("/try/{wish_id}", methods=_READ)
    async def wish_page(wish_id: WishId) -> Response:
        wish = desk.queue.get(wish_id)
        if wish is None:
            return problem(HTTPStatus.NOT_FOUND, _GONE)
        return _page(pages.try_it(snapshots.newest(), desk, wish=wish))

    return router


def try_api(counter: TryCounter) -> APIRouter:
    """The same for programs."""
    router, desk = (
        APIRouter(prefix="/api/v1/try", tags=["try"], route_class=HeadRoute),
        counter.desk,
    )
    accepted: Responses = {
        202: answers(Wish, examples.WISH)[200] | {"description": "Queued; follow it by its id."},
        429: problem_answer(),
    }

    @router.post(
        "",
        status_code=HTTPStatus.ACCEPTED,
        responses=accepted,
        response_class=Response,
    )
    async def ask(request: Request, body: TryBody) -> Response:
        """Ask for a clip of the newest release. Wait for its phase to become `done` or `failed`."""
        taken = counter.ask(request, body.prompt, body.seed)
        if not isinstance(taken, Wish):
            return taken
        headers = {"Location": f"/api/v1/try/{taken.wish_id}", **CORS}
        raw = msgspec.json.encode(desk.queue.get(taken.wish_id))
        return Response(raw, HTTPStatus.ACCEPTED, headers, media_type="application/json")

    @router.get("/{wish_id}", responses=answers(Wish, examples.WISH, 404))
    async def wish(request: Request, wish_id: WishId) -> Response:
        """How far a clip is."""
        found = desk.queue.get(wish_id)
        return _gone() if found is None else answer_json(request, found)

    _add_files(router, counter)
    return router


def _add_files(router: APIRouter, counter: TryCounter) -> None:
    desk = counter.desk
    stream = {"description": "A stream of events.", "content": {"text/event-stream": {}}}

    @router.get(
        "/{wish_id}/clip.mp4",
        responses=octets("The clip.", ranges=True),
        response_class=Response,
    )
    async def clip(wish_id: WishId) -> Response:
        """The finished clip."""
        return _file(desk.clip(wish_id), "video/mp4")

    @router.get("/{wish_id}/note", responses=octets("A signed envelope."), response_class=Response)
    async def note(wish_id: WishId) -> Response:
        """Where the clip comes from (release, prompt, seed): an envelope of the coordinator's, see docs/protocol.md."""
        return _file(desk.note(wish_id), "application/octet-stream")

    @router.get(
        "/{wish_id}/events",
        responses={200: stream, 404: problem_answer(), 503: problem_answer()},
        response_class=Response,
    )
    async def events(request: Request, wish_id: WishId) -> Response:
        """Server-sent events: `wish` with its JSON at once and after every change; ends with the clip."""
        if desk.queue.get(wish_id) is None:
            return _gone()
        too_many = counter.viewers.too_many(address_of(request))
        if too_many:
            detail = f"{too_many}; ask /api/v1/try/{wish_id} now and then instead"
            return _later(HTTPStatus.SERVICE_UNAVAILABLE, detail, 15)
        return event_stream(request, counter.viewers, _changes(counter, wish_id), CORS)


async def _changes(counter: TryCounter, wish_id: str) -> AsyncIterator[bytes]:
    """Ends when the wish is finished or forgotten, or when the client goes."""
    last: Wish | None = None
    while (wish := counter.desk.queue.get(wish_id)) is not None:
        if wish == last:
            yield b": nothing new\n\n"
        else:
            yield b"event: wish\ndata: " + msgspec.json.encode(wish) + b"\n\n"
        if wish.phase in ("done", "failed"):
            return
        last = wish
        await counter.desk.next_change(BEAT_S)


def _form(raw: bytes) -> tuple[str, int | None]:
    """Prompt and seed of a sent form; a seed that is no number counts as none."""
    fields = parse_qs(raw.decode(errors="replace"), max_num_fields=8)
    prompt, seed = fields.get("prompt", [""])[0], fields.get("seed", [""])[0].strip()
    fits = seed.isascii() and seed.isdigit() and len(seed) <= 10 and int(seed) < 2**31
    return prompt, int(seed) if fits else None


def _file(path: object, media_type: str) -> Response:
    if path is None:
        return _gone()
    return FileResponse(
        str(path), media_type=media_type, headers={"Cache-Control": FOREVER, **CORS}
    )


def _gone() -> Response:
    return problem(HTTPStatus.NOT_FOUND, _GONE, CORS)


def _later(status: HTTPStatus, detail: str, seconds: int) -> Response:
    return problem(status, detail, {"Retry-After": str(seconds), **CORS})


def _page(
    html: str, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response:
    return HTMLResponse(html, status, {"Cache-Control": "no-store", **(headers or {})})
