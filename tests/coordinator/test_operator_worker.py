"""The operator's own worker: work that fails at once is not asked for again at once."""

import asyncio
from pathlib import Path
from typing import cast

import pytest
from coordinator.small_swarm import rules, unamended
from protocol.samples import BLOB, COORDINATOR, SWARM

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.event_log import MemoryLog
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.operator_jobs import Workbench
from kinoswarm_coordinator.operator_worker import OperatorWorker, rest_after
from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.records_book import RecordsBook
from kinoswarm_coordinator.service import Service
from kinoswarm_model.jobs import Job
from kinoswarm_model.supervisor import WorkerSupervisor
from kinoswarm_network.client import NetworkClient
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.messages import Lease

RULES = rules(1)


class EmptyDisk(Workbench):
    """A store from which everything is gone."""

    async def job_of(self, lease: Lease) -> Job:
        raise LocalError("the blob is gone")


def service_with_work() -> Service:
    log = MemoryLog()
    log.append([ev.Founded(at_ms=1, num_clusters=1, seed_checkpoint=BLOB)])
    return Service(
        journal=Journal(log),
        rules=RULES,
        key=COORDINATOR,
        swarm=SWARM,
        presence=Presence(),
        book=RecordsBook(key=COORDINATOR, swarm=SWARM, addresses=[]),
        in_force=unamended(),
        now_ms=lambda: 1_000_000,
    )


def test_every_failure_in_a_row_waits_longer_up_to_minutes() -> None:
    rests = [rest_after(failures) for failures in range(12)]
    assert rests[:4] == [0.0, 2.0, 4.0, 8.0]
    assert rests == sorted(rests)
    assert rests[-1] == 300.0


def test_a_job_that_fails_at_once_is_not_tried_in_a_hot_loop(tmp_path: Path) -> None:
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 4:
            raise asyncio.CancelledError

    bench = EmptyDisk(
        folder=SwarmFolder(tmp_path),
        rules=RULES,
        network=cast(NetworkClient, None),
        threads=1,
        device="cpu",
        credited_flops=lambda: 0.0,
    )
    service = service_with_work()
    worker = OperatorWorker(
        service, bench, WorkerSupervisor(log_path=tmp_path / "worker.log"), 0.5, rest=rest
    )

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(worker.run())
    assert rests == [2.0, 4.0, 8.0, 16.0]
    assert [lease.phase for lease in service.journal.state.leases.values()] == ["failed"] * 4
