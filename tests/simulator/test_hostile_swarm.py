"""A small swarm that really trains, half of it hostile, in virtual time: benchmarks/hostile_swarm.py in short."""

from pathlib import Path

import pytest
from coordinator.test_starting import write_manifest
from model.samples import make_shard

from kinoswarm_coordinator.state import VersionState
from kinoswarm_model.data.data_manifest import DataCluster, DataFile
from kinoswarm_model.data.shards import write_shard
from kinoswarm_model.presets import preset
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_simulator.plan import Churn, Plan
from kinoswarm_simulator.real_truth import Course, RealTruth, is_trained, merged_segments
from kinoswarm_simulator.report import Detection, check_invariants, report_of
from kinoswarm_simulator.world import World

SEGMENTS = 8
WAYS = ("random", "flipped", "scaled", "zero", "lazy", "colluding")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two clusters, one dark and one bright, as `data prepare` leaves them."""
    folder = tmp_path / "data"
    model = preset("tiny", frames=4, height=16, width=16, num_clusters=2).model

    def file(name: str, count: int, index: int) -> DataFile:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_shard(path, make_shard(model, count, seed=index, brightness=90 * index))
        return DataFile(name, count, path.stat().st_size, "ab" * 32)

    clusters = [
        DataCluster(
            f"walls {index}",
            96,
            [file(f"shards/cluster-{index:02d}-shard-000.safetensors", 96, index)],
            file(f"heldout/cluster-{index:02d}.safetensors", 24, index),
        )
        for index in range(2)
    ]
    write_manifest(folder, clusters)
    return folder


def of(world: World, behaviour: str) -> Detection:
    return next(one for one in report_of(world).detections if one.behaviour == behaviour)


def test_hostile_work_stays_out_and_honest_work_improves_every_expert(
    data: Path, tmp_path: Path
) -> None:
    hostile = dict.fromkeys(WAYS, 0.5 / len(WAYS))
    churn = Churn(vanish_per_day=0.0, fail=0.05, always_on=1.0)
    plan = Plan(
        nodes=12, days=2.0, seed=3, clusters=2, hostile=hostile, join_within_s=20.0, churn=churn
    )
    truth = RealTruth(plan, Course(data=data, quorum=4, steps=6, seed_steps=20), tmp_path / "swarm")
    world = World(plan, truth.rules, truth)
    world.run(is_over=lambda world: is_trained(world.state, SEGMENTS))
    check_invariants(world)
    assert report_of(world).honest_banned == 0
    assert of(world, "honest").merged >= 2 * SEGMENTS
    attackers = [one for one in report_of(world).detections if one.behaviour in WAYS]
    assert sum(one.refused for one in attackers) > 0
    assert sum(one.merged for one in attackers) == 0
    assert truth.heldout_loss(world.state, SEGMENTS) < truth.heldout_loss(world.state, 0)


def version(number: int, segments: int, position: int) -> VersionState:
    return VersionState(
        version=number,
        checkpoint=BlobId(f"{number:064x}"),
        momentum=None,
        heldout_loss=None,
        created_at_ms=0,
        contributions=[LeaseId(f"{number}-{each}") for each in range(segments)],
        position=position,
    )


def test_segments_are_counted_along_the_versions_that_stand() -> None:
    line = [version(0, 0, 0), version(1, 4, 1), version(2, 5, 2), version(3, 6, 3)]
    assert [each.segments for each in merged_segments(line)] == [0, 4, 9, 15]
    line += [version(4, 0, 1), version(5, 3, 2)]
    found = merged_segments(line)
    assert [each.segments for each in found] == [0, 4, 7]
    assert found[-1].checkpoint == line[-1].checkpoint
