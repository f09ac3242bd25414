"""Asks a swarm's coordinators: signs the request, tries each way to them, checks the reply. Neither torch nor hivemind.

Owns what a reply must satisfy before anybody believes it; the ways themselves are transports.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar, overload

from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.errors import (
    BadSignature,
    Code,
    KinoswarmError,
    MalformedBytes,
    Refused,
    RemoteError,
    Unreachable,
    VersionMismatch,
)
from kinoswarm_protocol.ids import BlobId, LeaseId, PeerId, SwarmId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import (
    REPLY,
    REQUEST,
    Refusal,
    Reply,
    ReplyBody,
    Request,
    RequestBody,
)

A = TypeVar("A", bound=ReplyBody)
B = TypeVar("B", bound=ReplyBody)


class Asks(Protocol):
    """A way to a coordinator; `str()` names it. Every transport is one."""

    async def ask(self, request: bytes) -> bytes:
        """The answer to a control request's bytes. Raises a RemoteError."""

    async def deliver(self, lease_id: LeaseId, blob: BlobId) -> None:
        """See to it that the coordinator can have this blob of ours. Raises a RemoteError or LocalError."""


class UnknownSigner(Unreachable):
    """Somebody answered, but with a key that is no coordinator's as far as is known."""


class _Foreign(BadSignature):
    """One such answer."""


UNREAD_REQUEST = "0" * 32
"""The request id in a refusal of a request that the coordinator could not open."""


def new_request_id() -> str:
    """32 random hex digits; the same id is answered the same, so a lost reply loses nothing."""
    return secrets.token_hex(16)


_NOBODY = "no coordinator of the swarm could be reached"


def reason_of(error: KinoswarmError, way: str) -> str:
    """Why the only way that was tried failed, without naming it again."""
    text = str(error)
    if text.startswith(f"{_NOBODY} (") and text.endswith(")"):
        text = text[len(_NOBODY) + 2 : -1]
    return text.removeprefix(f"{way}: ").removeprefix(f"{way} ")


def _wall_clock_ms() -> int:
    return int(time.time() * 1000)


class CoordinatorClient:
    """One node's way to its coordinators.

    `transports` are tried in order until one answers; the one that answered is tried first the next time.
    """

    def __init__(
        self,
        key: KeyPair,
        swarm: SwarmId,
        coordinators: Sequence[PeerId],
        transports: Sequence[Asks],
        now_ms: Callable[[], int] = _wall_clock_ms,
    ) -> None:
        self.swarm = swarm
        self.coordinators = frozenset(coordinators)
        """Who may sign replies; an amendment may change it."""
        self.clock_ahead_ms = 0
        """Coordinator's clock minus ours, from the last reply; deadlines are counted with it."""
        self.learn: Callable[[], Awaitable[bool]] | None = None
        """Asked when somebody unknown signed a reply: looks for an amendment, says whether `coordinators` changed."""
        self._key = key
        self._transports = list(transports)
        self._now_ms = now_ms

    def set_transports(self, transports: Sequence[Asks]) -> None:
        """Replace the ways, when other addresses became known."""
        self._transports = list(transports)

    def coordinator_now_ms(self) -> int:
        """The coordinator's clock, as far as the last reply tells."""
        return self._now_ms() + self.clock_ahead_ms

    @overload
    async def ask(
        self, body: RequestBody, expected: type[A], *, request_id: str | None = None
    ) -> A: ...

    @overload
    async def ask(
        self,
        body: RequestBody,
        expected: type[A],
        other: type[B],
        *,
        request_id: str | None = None,
    ) -> A | B: ...

    async def ask(
        self,
        body: RequestBody,
        expected: type[A],
        other: type[B] | None = None,
        *,
        request_id: str | None = None,
    ) -> A | B:
        """The coordinator's answer, of type `expected` or `other`.

        Raises Refused when the coordinator says no, Unreachable when no way led to a believable answer (the text
        has every way's reason), VersionMismatch when one speaks another version, MalformedBytes when the answer is
        of another type.
        """
        request = Request(request_id=request_id or new_request_id(), body=body)
        answer = (await self._first_answer(request)).body
        if isinstance(answer, Refusal):
            raise Refused(_code(answer.code), answer.sentence)
        if isinstance(answer, expected):
            return answer
        if other is not None and isinstance(answer, other):
            return answer
        raise MalformedBytes(
            f"the coordinator answered {type(body).__name__} with {type(answer).__name__}, "
            f"expected {expected.__name__}"
        )

    async def deliver(self, lease_id: LeaseId, blob: BlobId) -> None:
        """Bring a blob that a submitted contribution names, by the way that answered last.

        Raises Unreachable or Refused, and LocalError when the blob is not here.
        """
        if not self._transports:
            raise Unreachable("no address of a coordinator is known")
        await self._transports[0].deliver(lease_id, blob)

    async def _first_answer(self, request: Request) -> Reply:
        raw = seal(self._key, REQUEST, self.swarm, request)
        try:
            return await self._try_ways(raw, request.request_id)
        except UnknownSigner:
            if self.learn is None or not await self.learn():
                raise
        return await self._try_ways(raw, request.request_id)

    async def _try_ways(self, raw: bytes, request_id: str) -> Reply:
        problems: list[str] = []
        foreign = False
        outdated: VersionMismatch | None = None
        for transport in list(self._transports):
            try:
                reply = self._checked(await transport.ask(raw), request_id)
            except RemoteError as error:
                problems.append(_named(transport, error))
                foreign = foreign or isinstance(error, _Foreign)
                outdated = error if isinstance(error, VersionMismatch) else outdated
                continue
            self._prefer(transport)
            self.clock_ahead_ms = reply.time_ms - self._now_ms()
            return reply
        if outdated:
            raise outdated
        tried = "; ".join(problems) or "no address of it is known"
        kind = UnknownSigner if foreign else Unreachable
        raise kind(f"{_NOBODY} ({tried})")

    def _checked(self, raw: bytes, request_id: str) -> Reply:
        opened = open_envelope(raw, REPLY, self.swarm)
        if opened.signer not in self.coordinators:
            raise _Foreign(
                f"the reply is signed by {opened.signer}, which is no coordinator of this swarm: another swarm's "
                "answers there, or this invite is older than a change of its keys; ask for a fresh invite"
            )
        if isinstance(opened.body.body, Refusal) and opened.body.request_id == UNREAD_REQUEST:
            return opened.body
        if opened.body.request_id != request_id:
            raise BadSignature("the reply belongs to another request: an old one was replayed")
        return opened.body

    def _prefer(self, transport: Asks) -> None:
        if self._transports and self._transports[0] is not transport:
            self._transports.remove(transport)
            self._transports.insert(0, transport)


def _named(transport: Asks, error: RemoteError) -> str:
    """What went wrong on which way; many errors name it themselves."""
    way = str(transport)
    return str(error) if way.removeprefix("peer ") in str(error) else f"{way}: {error}"


def _code(text: str) -> Code:
    try:
        return Code(text)
    except ValueError:
        return Code.NOT_PERMITTED
