"""Brings the blobs of submitted contributions here, then settles them. Owns the retries; decides nothing else."""

import asyncio
from dataclasses import dataclass, field

import structlog

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.submissions import settle, unavailable
from kinoswarm_coordinator.work_table import WorkState
from kinoswarm_network.client import NetworkClient
from kinoswarm_protocol.errors import KinoswarmError
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.messages import ProviderHint, blobs_of

_log = structlog.get_logger("intake")
_TRIES = 8
_FIRST_PAUSE_S = 1.0
"""Pauses double: a node that restarts within four minutes loses nothing."""


@dataclass(kw_only=True)
class Intake:
    """One task per contribution whose blobs are not all here."""

    service: Service
    network: NetworkClient
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

    async def stop(self) -> None:
        """End all fetching; a restart goes on."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _bring(self, lease_id: LeaseId) -> None:
        state = self.service.journal.state
        work = state.work[lease_id]
        problem = await self._fetch_all(work)
        now_ms = self.service.now_ms()
        if problem:
            _log.warning("unavailable", lease=lease_id, why=problem)
            await self.service.record(unavailable(state, work, now_ms, problem))
        else:
            await self.service.record(settle(state, self.service.rules, work, now_ms))

    async def _fetch_all(self, work: WorkState) -> str:
        """Empty when every blob is here, else what stood in the way at last."""
        pause_s, problem = _FIRST_PAUSE_S, ""
        for _ in range(_TRIES):
            try:
                for blob in blobs_of(work.outcome):
                    await self._fetch(work, blob)
            except KinoswarmError as error:
                problem = str(error)
            else:
                return ""
            await asyncio.sleep(pause_s)
            pause_s *= 2
        return problem

    async def _fetch(self, work: WorkState, blob: BlobId) -> None:
        if await self.network.blob_path(blob) is None:
            node = self.service.journal.state.nodes.get(work.node)
            addresses = list(node.addresses) if node else []
            await self.network.fetch_blob(blob, [ProviderHint(peer=work.node, addresses=addresses)])
        await self.network.pin(blob)
