"""The operator's worker is told what each cluster's expert is trained on: in judging, merging and releasing."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from coordinator.small_swarm import rules
from msgspec import structs
from protocol.samples import BLOB, COORDINATOR

from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.operator_jobs import Workbench
from kinoswarm_coordinator.state import Rules
from kinoswarm_model.jobs import EvaluateJob, Job, MergeJob, ReleaseJob
from kinoswarm_network.client import NetworkClient
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.messages import (
    EvaluateOrder,
    ExpertRef,
    Lease,
    MergeOrder,
    Order,
    ReleaseOrder,
    WeightedDelta,
)
from kinoswarm_protocol.specs import Objective

GONE = "9" * 64
OBJECTIVES: list[Objective] = ["velocity", "epsilon"]


class EveryBlob:
    """A store that has whatever is asked for, but for one."""

    async def blob_path(self, blob: BlobId) -> Path | None:
        return None if blob == GONE else Path("/blobs") / blob


def mixed_rules() -> Rules:
    found = rules(len(OBJECTIVES))
    clusters = [
        structs.replace(entry, objective=objective)
        for entry, objective in zip(found.charter.clusters, OBJECTIVES, strict=True)
    ]
    return replace(found, charter=structs.replace(found.charter, clusters=clusters))


def job_for(order: Order, folder: Path) -> Job:
    bench = Workbench(
        folder=SwarmFolder(folder),
        rules=mixed_rules(),
        network=cast(NetworkClient, EveryBlob()),
        threads=1,
        device="cpu",
        credited_flops=lambda: 0.0,
    )
    lease = Lease(
        lease_id=LeaseId("0" * 32),
        node=COORDINATOR.peer_id,
        issued_at_ms=0,
        deadline_ms=1,
        order=order,
    )
    return asyncio.run(bench.job_of(lease))


@pytest.mark.parametrize("cluster", [0, 1])
def test_a_judgement_is_of_what_the_charter_says(tmp_path: Path, cluster: int) -> None:
    order = EvaluateOrder(
        cluster=cluster, base_version=0, base=BLOB, deltas=[BLOB], pairs=4, seed=1
    )
    job = job_for(order, tmp_path)
    assert isinstance(job, EvaluateJob)
    assert job.objective == OBJECTIVES[cluster]


@pytest.mark.parametrize("cluster", [0, 1])
def test_a_merge_is_tested_by_what_the_charter_says(tmp_path: Path, cluster: int) -> None:
    job = job_for(merge_of(cluster), tmp_path)
    assert isinstance(job, MergeJob)
    assert job.objective == OBJECTIVES[cluster]


def merge_of(cluster: int) -> MergeOrder:
    return MergeOrder(
        cluster=cluster,
        lineage=0,
        base_version=0,
        base=BLOB,
        deltas=[WeightedDelta(contribution=LeaseId("1" * 32), delta=BLOB, weight=1.0)],
        outer_rate=1.0,
        outer_momentum=0.0,
        norm_clip=0.0,
        momentum=None,
        pairs=4,
        seed=1,
    )


def test_a_merge_whose_momentum_is_gone_begins_without(tmp_path: Path) -> None:
    """A backup of an older program kept that of the newest version alone; merging must not end for it."""
    order = structs.replace(merge_of(0), momentum=GONE)
    job = job_for(order, tmp_path)
    assert isinstance(job, MergeJob)
    assert job.momentum_path is None


def test_a_release_knows_the_objective_of_every_cluster(tmp_path: Path) -> None:
    experts = [ExpertRef(cluster=k, lineage=0, version=1, checkpoint=BLOB) for k in (0, 1)]
    order = ReleaseOrder(
        version=1,
        experts=experts,
        standing=[],
        pairs=4,
        margin=0.0,
        router=BLOB,
        prompts=[],
        seed=1,
    )
    job = job_for(order, tmp_path)
    assert isinstance(job, ReleaseJob)
    assert [job.objective_of(k) for k in (0, 1)] == OBJECTIVES
