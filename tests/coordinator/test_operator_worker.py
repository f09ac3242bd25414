"""The operator's own worker: work that fails at once is not asked for again at once."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from coordinator.small_service import journal_of, service_over
from coordinator.small_swarm import SmallSwarm, rules, trusted_outcome
from protocol.samples import BLOB, COORDINATOR, NODE, SWARM

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.operator_jobs import Workbench
from kinoswarm_coordinator.operator_worker import OperatorWorker, rest_after
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.submissions import expired
from kinoswarm_model.jobs import Job, TrainDone
from kinoswarm_model.supervisor import WorkerSupervisor
from kinoswarm_network.client import NetworkClient
from kinoswarm_protocol.envelope import open_envelope
from kinoswarm_protocol.errors import Code, LocalError, Refused
from kinoswarm_protocol.messages import CONTRIBUTION, FailedOutcome, Lease, Outcome, Submit

RULES = rules(1)


class EmptyDisk(Workbench):
    """A store from which everything is gone."""

    async def job_of(self, lease: Lease) -> Job:
        raise LocalError("the blob is gone")


def service_with_work() -> Service:
    founded = ev.Founded(at_ms=1, num_clusters=1, seed_checkpoint=BLOB)
    return service_over(journal_of([founded]), RULES)


def test_every_failure_in_a_row_waits_longer_up_to_minutes() -> None:
    rests = [rest_after(failures) for failures in range(12)]
    assert rests[:4] == [0.0, 2.0, 4.0, 8.0]
    assert rests == sorted(rests)
    assert rests[-1] == 300.0


def test_a_job_that_takes_longer_than_its_lease_counts_all_the_same(tmp_path: Path) -> None:
    """Nobody else could take it over: refused, it would end the coordinator, and be given out again after its start."""

    class SlowMachine(OperatorWorker):
        async def _outcome(self, lease: Lease) -> Outcome:
            clock_ms[0] = lease.deadline_ms + 1
            await service.record(expired(service.journal.state, RULES, clock_ms[0]))
            return trusted_outcome(lease)

    async def rest(seconds: float) -> None:
        raise asyncio.CancelledError

    service, clock_ms = service_with_work(), [1_000_000]
    service.now_ms = lambda: clock_ms[0]
    supervisor = WorkerSupervisor(log_path=tmp_path / "worker.log")
    worker = SlowMachine(service, bench_of(Workbench, tmp_path), supervisor, 0.5, rest=rest)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(worker.run())
    assert [work.outcome for work in service.journal.state.work.values()]


def test_after_a_restart_the_worker_goes_on_with_the_lease_it_had_however_late() -> None:
    swarm = SmallSwarm(RULES)
    lease = swarm.leased(COORDINATOR)
    swarm.now_ms = lease.deadline_ms + 1
    swarm.expire()
    assert swarm.pull(COORDINATOR) == lease
    swarm.finish(COORDINATOR, lease, trusted_outcome(lease))
    assert swarm.state.router is not None


def test_what_the_service_refuses_of_its_own_worker_is_handed_in_as_a_failure(
    tmp_path: Path,
) -> None:
    """Left open, the lease would come again after every start, and end the coordinator each time."""
    service = service_with_work()
    supervisor = WorkerSupervisor(log_path=tmp_path / "worker.log")
    worker = OperatorWorker(service, bench_of(Workbench, tmp_path), supervisor, 0.5)
    handed_in: list[Outcome] = []

    async def ask(body: Submit, *expected: object, request_id: str = "") -> None:
        opened = open_envelope(body.contribution, CONTRIBUTION, SWARM)
        handed_in.append(opened.body.outcome)
        if not isinstance(opened.body.outcome, FailedOutcome):
            raise Refused(Code.STALE_BASE, "the base was withdrawn")

    worker._client.ask = ask  # type: ignore[method-assign]
    lease = SmallSwarm(RULES).leased(COORDINATOR)
    asyncio.run(worker._submit(lease, trusted_outcome(lease)))
    assert isinstance(handed_in[1], FailedOutcome)
    assert handed_in[1].code == Code.STALE_BASE


def test_a_run_of_disputed_work_that_is_not_finite_is_a_failure(tmp_path: Path) -> None:
    done = TrainDone(
        output_path=str(tmp_path / "delta"),
        steps=1,
        samples=8,
        loss_first=1.0,
        loss_last=math.nan,
        delta_norm=1.0,
        seconds=1.0,
        flops=1.0,
    )
    lease = SmallSwarm(RULES).leased(COORDINATOR)
    with pytest.raises(LocalError, match="not finite"):
        asyncio.run(bench_of(Workbench, tmp_path).outcome_of(lease, done))


def test_a_lease_of_a_key_that_an_amendment_ended_expires() -> None:
    swarm = SmallSwarm(RULES)
    lease = swarm.leased(COORDINATOR)
    swarm.rules = replace(RULES, operator=NODE.peer_id)
    swarm.now_ms = lease.deadline_ms + 1
    swarm.expire()
    assert not swarm.state.open_leases


def bench_of(kind: type[Workbench], folder: Path) -> Workbench:
    return kind(
        folder=SwarmFolder(folder),
        rules=RULES,
        network=cast(NetworkClient, None),
        threads=1,
        device="cpu",
        credited_flops=lambda: 0.0,
    )


def test_a_job_that_fails_at_once_is_not_tried_in_a_hot_loop(tmp_path: Path) -> None:
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 4:
            raise asyncio.CancelledError

    bench = bench_of(EmptyDisk, tmp_path)
    service = service_with_work()
    worker = OperatorWorker(
        service, bench, WorkerSupervisor(log_path=tmp_path / "worker.log"), 0.5, rest=rest
    )

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(worker.run())
    assert rests == [2.0, 4.0, 8.0, 16.0]
    assert [lease.phase for lease in service.journal.state.leases.values()] == ["failed"] * 4
