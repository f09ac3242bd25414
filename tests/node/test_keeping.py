"""What nodes keep alive: signed records that are announced again, and the newest release where there is room."""

import asyncio
from pathlib import Path

import pytest
from node.scripted import NOW_MS, World, blob_of
from protocol.samples import COORDINATOR, FOUNDER, NODE, SWARM

from kinoswarm_node import joining
from kinoswarm_node.context import NodeContext
from kinoswarm_node.keeping import ENOUGH_PROVIDERS, held_tables, keep_alive, merged
from kinoswarm_protocol.envelope import seal
from kinoswarm_protocol.messages import RELEASE, ExpertRef, Lookup, ReleaseFile, ReleaseManifest
from kinoswarm_protocol.records import (
    COORDINATOR_KEY,
    RELEASE_KEY,
    Authority,
    CoordinatorRecord,
    ExpertRecord,
    Record,
    ReleaseRecord,
    provider_keys,
    seal_record,
)

DAY_MS = 24 * 3_600_000


def record(body: Record, swarm: str = SWARM, key=COORDINATOR, now_ms: int = NOW_MS) -> bytes:
    return seal_record(key, swarm, body, now_ms).value


def release(world: World, version: int, clip: bytes) -> bytes:
    """The signed record of a release of one file; all its blobs are there to be fetched."""
    manifest = ReleaseManifest(
        version=version,
        swarm_name="Test swarm",
        created_at_ms=NOW_MS,
        experts=[ExpertRef(cluster=0, lineage=0, version=version, checkpoint=blob_of(clip))],
        files=[ReleaseFile(path="a.mp4", blob=blob_of(clip), size_bytes=len(clip))],
        router_accuracy=[],
        share_by_expert=[1.0],
        charter_sha256=world.swarm,
    )
    table = seal(COORDINATOR, RELEASE, world.swarm, manifest)
    for data in (clip, table):
        world.blobs[blob_of(data)] = data
    return record(ReleaseRecord(version=version, blob=blob_of(table)), world.swarm)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def node(world: World) -> NodeContext:
    found = world.node(keep_release_gb=0.001)
    asyncio.run(joining.join(found))
    return found


def keep(node: NodeContext) -> None:
    asyncio.run(keep_alive(node))


def test_the_coordinators_records_are_announced_again(world: World, node: NodeContext) -> None:
    world.records[RELEASE_KEY] = [release(world, 1, b"a clip")]
    world.records[COORDINATOR_KEY] = [
        record(CoordinatorRecord(addresses=["/ip4/203.0.113.1/tcp/1"], epoch=1), world.swarm)
    ]
    keep(node)
    assert node.network.again == [COORDINATOR_KEY, RELEASE_KEY]


def test_records_live_on_when_the_coordinator_is_gone_and_the_node_starts_anew(
    world: World, node: NodeContext
) -> None:
    world.records[RELEASE_KEY] = [release(world, 1, b"a clip")]
    keep(node)
    world.fail_asks += [Lookup] * 3
    again = world.node(keep_release_gb=0.001)
    again.charter = node.charter
    keep(again)
    assert again.network.again == [RELEASE_KEY]
    assert len(held_tables(again)) == 1


def test_without_a_coordinator_records_come_from_the_dht(world: World, node: NodeContext) -> None:
    world.fail_asks += [Lookup] * 3
    node.network.dht[RELEASE_KEY] = [release(world, 4, b"a clip")]
    keep(node)
    assert node.network.again == [RELEASE_KEY]
    assert len(node.network.pinned) == 2


def test_the_newest_release_is_held_whole_and_the_older_one_may_go(
    world: World, node: NodeContext
) -> None:
    world.records[RELEASE_KEY] = [release(world, 1, b"first clip")]
    keep(node)
    first = held_tables(node)
    assert set(node.network.pinned) == {*first, blob_of(b"first clip")}
    world.records[RELEASE_KEY] = [release(world, 2, b"second clip")]
    keep(node)
    assert held_tables(node) != first
    assert set(node.network.unpinned) == {*first, blob_of(b"first clip")}


def test_a_fetch_that_breaks_off_holds_nothing_and_is_tried_again(
    world: World, node: NodeContext
) -> None:
    world.records[RELEASE_KEY] = [release(world, 1, b"a clip")]
    whole = world.blobs.pop(blob_of(b"a clip"))
    with pytest.raises(KeyError):
        keep(node)
    assert held_tables(node) == []
    world.blobs[blob_of(whole)] = whole
    keep(node)
    assert len(held_tables(node)) == 1


def test_a_release_over_the_volunteers_limit_is_left_to_others(
    world: World, node: NodeContext
) -> None:
    world.records[RELEASE_KEY] = [release(world, 1, bytes(1_000_001))]
    keep(node)
    assert held_tables(node) == []
    assert node.network.again == [RELEASE_KEY]


def test_a_release_that_enough_others_serve_is_left_to_them(
    world: World, node: NodeContext
) -> None:
    world.records[RELEASE_KEY] = [release(world, 1, b"a clip")]
    tables = [blob for blob, data in world.blobs.items() if b"Test swarm" in data]
    for key in [key for blob in tables for key in provider_keys(blob)]:
        node.network.dht[key] = [b"somebody"] * ENOUGH_PROVIDERS
    keep(node)
    assert held_tables(node) == []


def test_only_valid_records_of_the_kept_kinds_count() -> None:
    authority = Authority(SWARM, FOUNDER.peer_id, frozenset({COORDINATOR.peer_id}))
    blob = blob_of(b"")
    good = record(ReleaseRecord(version=2, blob=blob))
    older = record(ReleaseRecord(version=1, blob=blob))
    forged = record(ReleaseRecord(version=9, blob=blob), key=NODE)
    expired = record(
        CoordinatorRecord(addresses=["/ip4/203.0.113.1/tcp/1"], epoch=1), now_ms=NOW_MS - 2 * DAY_MS
    )
    other = record(ExpertRecord(cluster=0, lineage=0, version=1, checkpoint=blob))
    kept = merged([older, b"garbage"], [forged, good, expired, other], authority, NOW_MS)
    assert [found.raw for found in kept] == [good]
