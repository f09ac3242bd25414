"""Brings the blobs of submitted contributions here, then settles them. Owns the retries; decides nothing else."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.submissions import settle, unavailable
from kinoswarm_coordinator.uploads import upload_limit
from kinoswarm_coordinator.work_table import WorkState
from kinoswarm_network.client import NetworkClient
from kinoswarm_protocol.errors import KinoswarmError, LocalError
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.limits import MAX_BLOB_BYTES
from kinoswarm_protocol.messages import ProviderHint, TrainOrder
from kinoswarm_protocol.outcome_blobs import blobs_of

_log = structlog.get_logger("intake")
_TRIES = 9
_FIRST_PAUSE_S = 1.0
"""Pauses double: a node that restarts within four minutes loses nothing."""


@dataclass(kw_only=True)
class Intake:
    """One task per contribution whose blobs are not all here."""

    service: Service
    network: NetworkClient
    is_coming: Callable[[LeaseId], bool] = lambda lease_id: False
    """Whether the node itself is bringing the blob, over HTTP(S)."""
    _looks: dict[LeaseId, asyncio.Event] = field(default_factory=dict)
    """Set when a blob arrived by another way, so that nobody waits for the next try."""
    _running: dict[LeaseId, asyncio.Task[None]] = field(default_factory=dict)

    def on_events(self, events: list[ev.Event]) -> None:
        """Begin with what just came."""
        for event in events:
            if isinstance(event, ev.WorkReceived):
                self.begin(event.lease_id)

    def resume(self) -> None:
        """Go on with what was under way before a restart."""
        for lease_id in sorted(self.service.journal.state.unsettled):
            self.begin(lease_id)

    def begin(self, lease_id: LeaseId) -> None:
        """Fetch in the background; a second call for the same contribution changes nothing."""
        if lease_id not in self._running:
            task = asyncio.create_task(self._bring(lease_id))
            self._running[lease_id] = task
            task.add_done_callback(lambda _: self._running.pop(lease_id, None))

    def look_again(self, lease_id: LeaseId) -> None:
        """A blob of this contribution came by itself."""
        if look := self._looks.get(lease_id):
            look.set()

    async def stop(self) -> None:
        """End all fetching; a restart goes on."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _bring(self, lease_id: LeaseId) -> None:
        state = self.service.journal.state
        work = state.work[lease_id]
        self._looks[lease_id] = asyncio.Event()
        try:
            problem = await self._fetch_all(work)
        finally:
            del self._looks[lease_id]
        if lease_id not in state.unsettled:
            return  # it got its verdict meanwhile, and a second one would take that back
        now_ms = self.service.now_ms()
        if problem:
            _log.warning("unavailable", lease=lease_id, why=problem)
            await self.service.record(unavailable(state, work, now_ms, problem))
        else:
            await self.service.record(settle(state, self.service.rules, work, now_ms))

    async def _fetch_all(self, work: WorkState) -> str:
        """Empty when every blob is here, else what stood in the way at last."""
        pause_s, problem = _FIRST_PAUSE_S, ""
        for attempt in range(_TRIES):
            if attempt:
                await self._pause(work.lease_id, pause_s)
                pause_s *= 2
            if work.lease_id not in self.service.journal.state.unsettled:
                break
            try:
                for blob in blobs_of(work.outcome):
                    await self._fetch(work, blob)
            except KinoswarmError as error:
                problem = str(error)
            else:
                return ""
        return problem

    async def _pause(self, lease_id: LeaseId, pause_s: float) -> None:
        """Wait for the next try; one look more when the blob came by itself, and no end while it is coming."""
        look = self._looks[lease_id]
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await look.wait()
            if look.is_set() or not self.is_coming(lease_id):
                look.clear()
                return

    async def _fetch(self, work: WorkState, blob: BlobId) -> None:
        if await self.network.blob_path(blob) is None:
            node = self.service.journal.state.nodes.get(work.node)
            addresses = list(node.addresses) if node else []
            provider = ProviderHint(peer=work.node, addresses=addresses)
            most = await self._most_bytes(work, blob)
            await self.network.fetch_blob(blob, [provider], max_bytes=most)
        await self.network.pin(blob)
        if await self.network.blob_path(blob) is None:
            raise LocalError(
                "it went in the moment in which it was named again; the next try fetches it"
            )

    async def _most_bytes(self, work: WorkState, blob: BlobId) -> int:
        """As an upload may have, for what volunteers send; the operator's own worker is trusted."""
        state = self.service.journal.state
        order = state.leases[work.lease_id].order
        if not isinstance(order, TrainOrder):
            return MAX_BLOB_BYTES
        base = await self.network.blob_path(BlobId(order.base))
        return upload_limit(state, work.lease_id, blob, base.stat().st_size if base else 0)
