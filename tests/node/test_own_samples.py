"""Clips of my expert: made now and then, shown with their version, bounded on disk, never in the way of training."""

import asyncio
from pathlib import Path

import pytest
from msgspec import structs
from node.scripted import NOW_MS, World, blob_of
from node.test_daemon import live
from node.test_page import ask

from kinoswarm_model.jobs import SampleJob, TrainJob
from kinoswarm_model.supervisor import WorkerDied, WorkerError
from kinoswarm_node import own_samples
from kinoswarm_node.context import NodeContext
from kinoswarm_node.daemon import Daemon
from kinoswarm_node.joining import join
from kinoswarm_node.own_samples import KEPT, OwnSample, is_due, make_sample, samples
from kinoswarm_node.swarm_folder import HistoryLine
from kinoswarm_protocol.envelope import open_envelope
from kinoswarm_protocol.messages import LEASE, TrainOrder

SEGMENT = HistoryLine(
    at_ms=NOW_MS, lease_id="a" * 32, state="accepted", code="accepted", sentence="good"
)


def order(world: World, version: int) -> TrainOrder:
    found = open_envelope(world.lease(1), LEASE, world.swarm).body.order
    assert isinstance(found, TrainOrder)
    return structs.replace(found, base_version=version)


async def joined(world: World) -> NodeContext:
    """A node with base and shard on its disk and one segment behind it."""
    node = world.node()
    await join(node)
    for data in (world.base, world.shard):
        await node.network.fetch_blob(blob_of(data), (), lambda done, total: None)
    node.folder.close("a" * 32, SEGMENT)
    return node


def sampled(world: World, *versions: int) -> NodeContext:
    """One clip of each version, `sample_every` segments apart."""

    async def make() -> NodeContext:
        node = await joined(world)
        for number, version in enumerate(versions):
            for segment in range(node.settings.sample_every):
                lease_id = f"{number * 100 + segment:032x}"
                node.folder.close(lease_id, structs.replace(SEGMENT, lease_id=lease_id))
            node.now_ms = lambda at_ms=NOW_MS + version: at_ms
            await make_sample(node, order(world, version))
        return node

    return asyncio.run(make())


def one(version: int, segments: int) -> OwnSample:
    return OwnSample(
        file=f"{version}.mp4",
        cluster=0,
        label="l",
        version=version,
        caption="c",
        at_ms=version,
        segments=segments,
    )


@pytest.mark.parametrize(
    ("made", "version", "segments", "every", "due"),
    [
        ([], 0, 0, 4, False),  # nobody's first step waits for a clip
        ([], 0, 1, 4, True),
        ([one(1, 1)], 2, 4, 4, False),
        ([one(1, 1)], 2, 5, 4, True),
        ([one(1, 1)], 1, 50, 4, False),  # that version is shown already
        ([], 0, 9, 0, False),
    ],
)
def test_a_clip_is_due_for_a_new_version_every_few_segments(
    made: list[OwnSample], version: int, segments: int, every: int, due: bool, tmp_path: Path
) -> None:
    base = structs.replace(order(World(tmp_path), version), cluster=0)
    assert is_due(made, base, segments, every) is due


def test_a_clip_is_kept_with_its_version_and_shown_on_the_page(tmp_path: Path) -> None:
    node = sampled(World(tmp_path), 1, 2)
    told = ask(node, "GET", "/api/samples").json()
    assert [clip["version"] for clip in told["clips"]] == [2, 1]
    assert told["clips"][0]["caption"] == "a hall of grey stone"
    assert told["problem"] == ""
    clip = ask(node, "GET", f"/samples/{told['clips'][0]['file']}")
    assert clip.content.startswith(b"clip of ")
    assert clip.headers["content-type"] == "video/mp4"
    part = ask(node, "GET", f"/samples/{told['clips'][0]['file']}", headers={"range": "bytes=0-3"})
    assert part.status_code == 206


@pytest.mark.parametrize(
    "name", ["cluster-0-version-9.mp4", "..%2f..%2fidentity.key", "samples.json"]
)
def test_only_clips_of_the_list_are_served_and_only_to_the_volunteer(
    tmp_path: Path, name: str
) -> None:
    node = sampled(World(tmp_path), 1)
    assert ask(node, "GET", f"/samples/{name}").status_code == 404
    shown = f"/samples/{samples(node.folder)[0].file}"
    assert ask(node, "GET", shown, cookies={}).status_code == 401


def test_the_disk_holds_a_bounded_number_of_clips(tmp_path: Path) -> None:
    node = sampled(World(tmp_path), *range(1, KEPT + 4))
    assert len(samples(node.folder)) == KEPT
    on_disk = {path.name for path in (node.folder.root / "samples").iterdir()}
    assert on_disk == {one.file for one in samples(node.folder)}
    assert samples(node.folder)[0].version == KEPT + 3
    assert not (node.folder.worker_dir / "sampling").exists()


@pytest.mark.parametrize(
    "fault", [WorkerDied("ended by signal 9"), WorkerError("work_failed", "no codec", False)]
)
def test_a_clip_that_fails_costs_the_segment_nothing_and_is_not_tried_again(
    tmp_path: Path, fault: Exception
) -> None:
    world = World(tmp_path, num_leases=3, sample_faults=[fault])
    node = world.node()
    node.folder.close("a" * 32, SEGMENT)
    state = live(Daemon(node, once=True))
    assert state.accepted == 1
    assert sum(isinstance(job, SampleJob) for job in world.jobs) == 1
    assert sum(isinstance(job, TrainJob) for job in world.jobs) == 1
    assert ask(node, "GET", "/api/samples").json()["problem"] == str(fault)


def test_a_damaged_list_begins_anew(tmp_path: Path) -> None:
    node = sampled(World(tmp_path), 1)
    node.folder.keep_text("samples.json", b'[{"file": 1')
    assert samples(node.folder) == []
    assert ask(node, "GET", "/api/samples").json()["clips"] == []


def test_a_clip_that_takes_too_long_is_given_up_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_samples, "PATIENCE_S", 0.0)
    node = sampled(World(tmp_path), 1)
    assert "takes longer" in node.no_samples
    assert samples(node.folder) == []
