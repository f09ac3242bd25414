"""Answers requests: opens the envelope, decides, logs, signs the reply. Owns the clock, the chance and the key."""

import asyncio
import secrets
import time
from collections.abc import Callable, Set
from dataclasses import dataclass, field, replace

import structlog

from kinoswarm_coordinator import requests as rq
from kinoswarm_coordinator.amendments import amended_events
from kinoswarm_coordinator.charter_file import InForce
from kinoswarm_coordinator.events import Event
from kinoswarm_coordinator.front_door import FrontDoor
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.records_book import RecordsBook
from kinoswarm_coordinator.state import Rules
from kinoswarm_coordinator.status import swarm_status
from kinoswarm_coordinator.version_steps import steps_to
from kinoswarm_protocol.address_ranges import range_of
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.errors import RemoteError
from kinoswarm_protocol.ids import PeerId, SwarmId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.limits import MAX_RECORDS_PER_LOOKUP
from kinoswarm_protocol.log_head import LOG_KEY
from kinoswarm_protocol.messages import (
    LEASE,
    REPLY,
    REQUEST,
    VERDICT,
    LeaseGrant,
    Noted,
    NoWork,
    Progress,
    ProgressNoted,
    ProviderHint,
    PullLease,
    Receipt,
    Records,
    Refusal,
    Reply,
    ReplyBody,
    Request,
    Verdict,
    Verdicts,
    Welcome,
)

_UNKNOWN_REQUEST = "0" * 32
_log = structlog.get_logger("service")


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


@dataclass(kw_only=True)
class Service:
    """One coordinator's answers. `on_events` hears of every durable change."""

    journal: Journal
    rules: Rules
    key: KeyPair
    swarm: SwarmId
    presence: Presence
    book: RecordsBook
    in_force: InForce
    on_events: Callable[[list[Event]], None] = lambda events: None
    now_ms: Callable[[], int] = wall_clock_ms
    newest_head: Callable[[], bytes] = bytes
    """The signed end of the log; empty before the first."""
    door: FrontDoor = field(default_factory=FrontDoor)

    async def answer(self, raw: bytes, host: str = "") -> bytes:
        """The signed reply to a request's bytes; bytes that are no request get a refusal, never an exception.

        `host` is the IP address that they came from, where it is known. Of it the range alone is kept, in memory.
        """
        try:
            opened = open_envelope(raw, REQUEST, self.swarm)
        except RemoteError as error:
            _log.info("refused", code=error.code, why=str(error))
            refusal = Refusal(code=error.code, sentence=str(error)[:500])
            return self._reply(_UNKNOWN_REQUEST, refusal)
        now_ms = self.now_ms()
        self._heard(opened.signer, now_ms, host)
        request = opened.body
        asked = rq.Asked(
            signer=opened.signer,
            request=request,
            swarm=self.swarm,
            now_ms=now_ms,
            seed=secrets.randbits(128),
            neighbours=self._neighbours(opened.signer, request),
        )
        decision = rq.handle(self.journal.state, self.rules, asked)
        decision = self.door.admitted(
            self.journal.state, opened.signer, host, decision, now_ms / 1000
        )
        if decision.events:
            _log.info("decided", peer=opened.signer, why=decision.reason)
        if isinstance(request.body, Progress) and isinstance(decision.say, ProgressNoted):
            self.presence.progressed(opened.signer, request.body)
        await self.record(decision.events)
        self._heard(opened.signer, now_ms, host)  # also whom this very request let join
        return self._reply(request.request_id, self._said(decision.say, opened.signer))

    def _heard(self, signer: PeerId, now_ms: int, host: str) -> None:
        if signer in self.journal.state.nodes:
            self.presence.seen(signer, now_ms, range_of(host))

    def _neighbours(self, signer: PeerId, request: Request) -> Set[PeerId]:
        """Only who asks for work is compared with others."""
        is_pull = isinstance(request.body, PullLease)
        return self.presence.neighbours(signer) if is_pull else frozenset()

    async def follow(self, in_force: InForce) -> None:
        """Decide by this charter from now on, and log each amendment that is new."""
        charter = in_force.chain.charter
        self.in_force = in_force
        self.rules = replace(self.rules, charter=charter)
        self.book = self.book.of_charter(in_force)
        await self.record(amended_events(self.journal.state, in_force, self.now_ms()))

    async def record(self, events: list[Event]) -> None:
        """Return when events are durable, and whatever was decided before them; whoever listens has heard by then.

        An asker that is gone meanwhile changes nothing: what was decided is logged, so listeners hear of it.
        """
        written = self.journal.begin(events)
        if events:
            written.add_done_callback(lambda done: self._tell(done, events))
        await asyncio.shield(written)

    def _tell(self, written: "asyncio.Future[None]", events: list[Event]) -> None:
        if not written.cancelled() and written.exception() is None:
            self.on_events(events)

    def _reply(self, request_id: str, body: ReplyBody) -> bytes:
        reply = Reply(request_id=request_id, time_ms=self.now_ms(), body=body)
        return seal(self.key, REPLY, self.swarm, reply)

    def _said(self, say: rq.Say, signer: PeerId) -> ReplyBody:
        match say:
            case rq.SayWelcome():
                return self._welcome(signer, say.notice)
            case rq.SayLease():
                lease = seal(self.key, LEASE, self.swarm, say.lease)
                steps = steps_to(self.journal.state, say.lease.order)
                return LeaseGrant(lease=lease, providers=[self._self_as_provider()], steps=steps)
            case rq.SayReceipt():
                verdict = self._sealed(say.verdict) if say.verdict else None
                return Receipt(lease_id=say.lease_id, verdict=verdict)
            case rq.SayVerdicts():
                return Verdicts(verdicts=[self._sealed(verdict) for verdict in say.verdicts])
            case rq.SayRecords():
                return Records(records=self._records(say.key))
            case rq.SayStatus():
                return swarm_status(self.journal.state, self.rules, self.presence, self.now_ms())
            case NoWork() | Noted() | ProgressNoted() | Refusal():
                return say

    def _records(self, key: str) -> list[bytes]:
        if key == LOG_KEY:
            head = self.newest_head()
            return [head] if head else []
        records = self.book.under(key, self.journal.state, self.now_ms())
        return [record.value for record in records[:MAX_RECORDS_PER_LOOKUP]]

    def _welcome(self, signer: PeerId, notice: str) -> Welcome:
        delegation = self.journal.state.delegations.get(signer)
        return Welcome(
            charter=self.rules.charter_blob,
            amendments=list(self.in_force.amendment_blobs),
            notice=notice,
            account=delegation.account if delegation else None,
        )

    def _self_as_provider(self) -> ProviderHint:
        addresses = [a for a in self.book.addresses if a.startswith("/")]
        return ProviderHint(peer=self.key.peer_id, addresses=addresses)

    def _sealed(self, verdict: Verdict) -> bytes:
        return seal(self.key, VERDICT, self.swarm, verdict)
