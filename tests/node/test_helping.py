"""A helper: it asks for audits alone, and keeps and serves experts and data within the volunteer's limit."""

import asyncio
from pathlib import Path

import pytest
from node.scripted import NOW_MS, SHARD, World, blob_of
from node.test_keeping import keep, record, release
from protocol.samples import ACCOUNT

from kinoswarm_model.jobs import SelfTestDone
from kinoswarm_node import joining, pulling
from kinoswarm_node import life_events as ev
from kinoswarm_node.context import NodeContext
from kinoswarm_node.governor.readings import Reading
from kinoswarm_node.mirroring import Mirrored, mirrored
from kinoswarm_node.settings import load_settings
from kinoswarm_node.why import explain
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.messages import PullLease
from kinoswarm_protocol.records import RELEASE_KEY, ExpertRecord, expert_key

FIRST, SECOND = b"the first expert", b"the second expert"


def publish(world: World, data: bytes, version: int, **signing: object) -> BlobId:
    """The newest version of the expert of cluster 0."""
    blob = blob_of(data)
    world.blobs[blob] = data
    body = ExpertRecord(cluster=0, lineage=0, version=version, checkpoint=blob)
    world.records[expert_key(0, 0)] = [record(body, world.swarm, **signing)]
    return blob


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def helper_in(world: World, **settings: object) -> NodeContext:
    found = world.node(role="helper", keep_release_gb=0.001, **settings)
    asyncio.run(joining.join(found))
    return found


def test_a_helpers_pull_says_what_it_is_and_how_fast(world: World) -> None:
    node = helper_in(world)

    async def scenario() -> ev.Event:
        await joining.test_self(node)
        return await pulling.pull(node)

    assert isinstance(asyncio.run(scenario()), ev.LeaseGranted)
    (pull,) = [body for body in world.bodies if isinstance(body, PullLease)]
    assert pull.helper
    assert pull.seconds_per_step > 0


def test_a_machine_that_is_too_small_to_audit_asks_for_nothing_and_still_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    done = SelfTestDone(
        ok=False,
        fits=False,
        sentence="this swarm's model does not fit",
        seconds_per_step=0.0,
        device_name="cpu",
        memory_bytes=2**30,
    )

    async def scenario() -> NodeContext:
        node = world.node(role="helper", keep_release_gb=0.001)
        await joining.join(node)

        async def run_self_test(job: object, on_progress: object) -> SelfTestDone:
            return done

        monkeypatch.setattr(node.trainer, "run", run_self_test)
        tested = await joining.test_self(node)
        assert "seconds_per_step=0.0" in repr(tested)
        said = await pulling.pull(node)
        assert "keeps and serves" in repr(said)
        return node

    node = asyncio.run(scenario())
    assert not any(isinstance(body, PullLease) for body in world.bodies)
    held = publish(world, FIRST, 1)
    keep(node)
    assert held in node.network.pinned


def test_experts_and_data_are_held_and_an_older_expert_may_go(world: World) -> None:
    node, old = helper_in(world), publish(world, FIRST, 1)
    keep(node)
    shard = blob_of(SHARD)
    assert mirrored(node.folder.root).size_by_blob == {old: len(FIRST), shard: len(SHARD)}
    assert set(node.network.pinned) == {old, shard}
    new = publish(world, SECOND, 2)
    keep(node)
    assert set(mirrored(node.folder.root).size_by_blob) == {new, shard}
    assert node.network.unpinned == [old]
    assert "2 files of experts and data" in node.board.status.keeps
    why = explain(node.board.status, True, [], node.settings, NOW_MS)
    assert "A helper: it does others' segments again and trains nothing of its own." in why.not_more
    assert node.board.status.keeps in why.now


def test_release_experts_and_data_together_stay_within_the_limit(world: World) -> None:
    node = helper_in(world)
    world.records[RELEASE_KEY] = [release(world, 1, bytes(600_000))]
    fits = publish(world, bytes(399_000), 1)
    keep(node)
    assert mirrored(node.folder.root).size_by_blob == {fits: 399_000}
    larger = publish(world, bytes(500_000), 2)
    keep(node)
    assert larger not in mirrored(node.folder.root).size_by_blob


def test_an_expert_that_no_coordinator_signed_is_not_fetched(world: World) -> None:
    node, forged = helper_in(world), publish(world, FIRST, 9, key=ACCOUNT)
    keep(node)
    assert forged not in mirrored(node.folder.root).size_by_blob


def test_nothing_is_fetched_over_a_metered_connection(world: World) -> None:
    node = helper_in(world)
    publish(world, FIRST, 1)
    node.governor.reading = Reading(minute_of_week=0, metered=True)
    keep(node)
    assert mirrored(node.folder.root) == Mirrored()


def test_a_fetch_that_breaks_off_keeps_what_came_and_forgets_no_pin(world: World) -> None:
    node, expert = helper_in(world), publish(world, FIRST, 1)
    del world.blobs[blob_of(SHARD)]
    with pytest.raises(KeyError):
        keep(node)
    assert set(mirrored(node.folder.root).size_by_blob) == {expert}


@pytest.mark.parametrize("raw", [b"", b"{", b'[{"x": -1}]', b"\xff" * 40])
def test_a_damaged_list_is_an_empty_one(world: World, raw: bytes) -> None:
    node = helper_in(world)
    (node.folder.root / "mirror.json").write_bytes(raw)
    assert mirrored(node.folder.root) == Mirrored()


def test_a_trainer_mirrors_nothing(world: World) -> None:
    node = world.node(keep_release_gb=0.001)
    asyncio.run(joining.join(node))
    publish(world, FIRST, 1)
    keep(node)
    assert mirrored(node.folder.root) == Mirrored()


def test_a_helper_has_more_room_for_others_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    assert load_settings(home=tmp_path).keep_release_gb == 1.0
    assert load_settings(home=tmp_path, role="helper").keep_release_gb == 20.0
    assert load_settings(home=tmp_path, role="helper", keep_release_gb=2.0).keep_release_gb == 2.0
    again = load_settings(home=tmp_path, role="helper").with_changes({"share_percent": 50})
    assert again.keep_release_gb == 20.0
