"""The operator's own worker: pulls trusted leases like any node, does them, submits. Owns this loop."""

import asyncio
import secrets
import shutil
from collections.abc import Awaitable, Callable

import structlog

from kinoswarm_coordinator.operator_jobs import Workbench
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.try_desk import TryDesk
from kinoswarm_model.jobs import JobProgress
from kinoswarm_model.supervisor import WorkerDied, WorkerError, WorkerSupervisor
from kinoswarm_network.coordinator_client import CoordinatorClient
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.errors import Code, LocalError, Refused
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import (
    CONTRIBUTION,
    LEASE,
    Contribution,
    FailedOutcome,
    Lease,
    LeaseGrant,
    NoWork,
    Outcome,
    PullLease,
    Receipt,
    Submit,
)

_log = structlog.get_logger("operator")
_DEATHS_PER_JOB = 3
_LONGEST_REST_S = 300.0

Rest = Callable[[float], Awaitable[None]]
"""Waits so many seconds."""


def rest_after(failures: int) -> float:
    """Seconds to wait after so many failed jobs in a row: the same job comes again at once, and seldom goes better."""
    return min(_LONGEST_REST_S, 2.0**failures) if failures else 0.0


class OwnTransport:
    """The way from the operator's worker to its own service: the same envelopes, no wire."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __str__(self) -> str:
        return "own service"

    async def ask(self, request: bytes) -> bytes:
        """The service's reply."""
        return await self._service.answer(request)

    async def deliver(self, lease_id: LeaseId, blob: BlobId) -> None:
        """The worker's blobs lie in the service's own store."""


class OperatorWorker:
    """One worker process and the loop that feeds it."""

    def __init__(
        self,
        service: Service,
        bench: Workbench,
        supervisor: WorkerSupervisor,
        idle_s: float,
        desk: TryDesk | None = None,
        rest: Rest = asyncio.sleep,
    ) -> None:
        """`desk` brings what visitors of the page wish for; at most one wish is served between two leases."""
        self._rest = rest
        self._failures = 0
        self._service = service
        self._bench = bench
        self._supervisor = supervisor
        self._idle_s = idle_s
        self._desk = desk
        self._client = CoordinatorClient(
            service.key, service.swarm, [service.key.peer_id], [OwnTransport(service)]
        )
        self.doing = ""
        """What it does now, for the page; empty when idle."""

    async def run(self) -> None:
        """Work until cancelled; the worker process ends with it."""
        try:
            while True:
                lease = await self._pull()
                if lease is not None:
                    await self._do(lease)
                served = await self._serve_visitor()
                if lease is None and not served:
                    await self._rest(self._idle_s)
                if lease is not None and self._failures:
                    await self._rest_after_failure()
        finally:
            await self._supervisor.kill()

    async def _rest_after_failure(self) -> None:
        """Wait, and begin the next job in a new process: what a process holds may be what was wrong."""
        seconds = rest_after(self._failures)
        self.doing = f"waiting {seconds:.0f} s after {self._failures} failed job(s); see the log"
        await self._supervisor.stop()
        await self._rest(seconds)
        self.doing = ""

    async def _serve_visitor(self) -> bool:
        if self._desk is None:
            return False
        served = await self._desk.serve_next(self._supervisor)
        if served:
            _log.info("made a visitor's clip")
        return served

    async def _pull(self) -> Lease | None:
        modes = self._bench.rules.charter.model.modes
        pull = PullLease(modes=modes, clusters_on_disk=[], seconds_per_step=0.0)
        answer = await self._client.ask(pull, LeaseGrant, NoWork)
        if isinstance(answer, NoWork):
            return None
        key: KeyPair = self._service.key
        return open_envelope(answer.lease, LEASE, self._service.swarm, key.peer_id).body

    async def _do(self, lease: Lease) -> None:
        kind = type(lease.order).__name__.removesuffix("Order").lower()
        self.doing = kind
        _log.info("begins", kind=kind, lease=lease.lease_id)
        try:
            outcome = await self._outcome(lease)
        finally:
            self.doing = ""
        await self._submit(lease, outcome)
        shutil.rmtree(self._bench.work_dir(lease.lease_id), ignore_errors=True)

    async def _outcome(self, lease: Lease) -> Outcome:
        """The result, or an honest failure; a worker that dies is started again a few times."""
        problem = ""
        for _ in range(_DEATHS_PER_JOB):
            try:
                job = await self._bench.job_of(lease)
                done = await self._supervisor.run(job, self._on_progress)
                return await self._bench.outcome_of(lease, done)
            except WorkerDied as error:
                problem = str(error)
                _log.warning("worker died", lease=lease.lease_id, why=problem)
            except WorkerError as error:
                return _failed(error.code, str(error))
            except LocalError as error:
                return _failed(Code.WORK_FAILED, str(error))
        return _failed(Code.WORK_FAILED, problem)

    def _on_progress(self, progress: JobProgress) -> None:
        self.doing = f"{progress.what} {progress.step}/{progress.total}"

    async def _submit(self, lease: Lease, outcome: Outcome) -> None:
        failed = isinstance(outcome, FailedOutcome)
        self._failures = self._failures + 1 if failed else 0
        if isinstance(outcome, FailedOutcome):
            _log.error("failed", lease=lease.lease_id, why=outcome.sentence)
        service = self._service
        contribution = Contribution(
            lease_id=lease.lease_id,
            node=service.key.peer_id,
            finished_at_ms=service.now_ms(),
            outcome=outcome,
        )
        raw = seal(service.key, CONTRIBUTION, service.swarm, contribution)
        request_id = secrets.token_hex(16)
        try:
            await self._client.ask(Submit(contribution=raw), Receipt, request_id=request_id)
        except Refused as error:
            # Kept open, its lease would be given out again after every start.
            if isinstance(outcome, FailedOutcome):
                _log.error("not even a failure is taken", lease=lease.lease_id, why=str(error))
                return
            await self._submit(lease, _failed(error.code, str(error)))


def _failed(code: str, sentence: str) -> FailedOutcome:
    return FailedOutcome(code=str(code)[:64], sentence=sentence[:500])
