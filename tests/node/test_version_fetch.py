"""A newer version by steps from one that is here: which steps, and that whatever is wrong with them costs only them."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node.scripted import FakeNetwork, World, blob_of

from kinoswarm_model.jobs import RebuildJob
from kinoswarm_node.context import NodeContext
from kinoswarm_node.pulling import pull
from kinoswarm_node.version_fetch import fetch_version, steps_from
from kinoswarm_protocol.errors import Unreachable
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.version_steps import VersionStep

LEASE = LeaseId("0" * 32)
VERSIONS = [b"v0" * 40, b"v0" * 40 + b"+1", b"v0" * 40 + b"+1+2"]


def step(number: int, size: int = 2, data: bytes = b"") -> VersionStep:
    """From VERSIONS[number - 1] to VERSIONS[number]."""
    return VersionStep(
        base=blob_of(VERSIONS[number - 1]),
        result=blob_of(VERSIONS[number]),
        delta=blob_of(data or f"+{number}".encode()),
        delta_bytes=size,
    )


def a_node(tmp_path: Path, steps: list[VersionStep]) -> tuple[World, NodeContext]:
    world = World(tmp_path)
    for data in (*VERSIONS, b"+1", b"+2", b"nonsense"):
        world.blobs[blob_of(data)] = data
    node = world.node()
    node.charter = world.charter
    node.steps[LEASE] = steps
    return world, node


def fetched(node: NodeContext, held: int, faults: Sequence[Exception] = ()) -> dict[str, bytes]:
    """What lies in the store once version 2 was asked for, with version `held` there before."""
    assert isinstance(node.network, FakeNetwork)
    store = node.network

    async def scenario() -> None:
        await store.fetch_blob(blob_of(VERSIONS[held]), [], lambda done, total: None)
        store.world.fetch_faults = list(faults)
        await fetch_version(node, LEASE, blob_of(VERSIONS[2]), [], "version 2 of hall")

    asyncio.run(scenario())
    return {path.name: path.read_bytes() for path in store.root.iterdir()}


def test_steps_from_the_version_that_is_here_give_the_new_one(tmp_path: Path) -> None:
    world, node = a_node(tmp_path, [step(2), step(1)])
    found = fetched(node, held=0)
    assert found[blob_of(VERSIONS[2])] == VERSIONS[2]
    assert {blob_of(b"+1"), blob_of(b"+2")} <= set(found)
    assert [type(job) for job in world.jobs] == [RebuildJob]
    assert node.network.unpinned == [blob_of(VERSIONS[2])]
    assert not (node.folder.root / "rebuilding").exists()


def test_only_the_steps_that_are_missing_are_taken(tmp_path: Path) -> None:
    _, node = a_node(tmp_path, [step(2), step(1)])
    found = fetched(node, held=1)
    assert found[blob_of(VERSIONS[2])] == VERSIONS[2]
    assert blob_of(b"+1") not in found


def test_steps_that_lead_elsewhere_cost_only_themselves(tmp_path: Path) -> None:
    world, node = a_node(tmp_path, [step(2, data=b"nonsense")])
    assert fetched(node, held=1)[blob_of(VERSIONS[2])] == VERSIONS[2]
    assert len(world.jobs) == 1


def test_a_step_that_nobody_gives_is_no_reason_to_stop(tmp_path: Path) -> None:
    world, node = a_node(tmp_path, [step(2)])
    found = fetched(node, held=1, faults=[Unreachable("nobody has it")])
    assert found[blob_of(VERSIONS[2])] == VERSIONS[2]
    assert blob_of(b"+2") not in found
    assert world.jobs == []


@pytest.mark.parametrize(
    ("steps", "held"),
    [([step(2, size=1000)], 1), ([step(1)], 0), ([], 1), ([step(1), step(2)], 0)],
    ids=["larger than all of it", "to another version", "none", "in the wrong order"],
)
def test_where_steps_are_no_use_the_whole_version_comes(
    tmp_path: Path, steps: list[VersionStep], held: int
) -> None:
    world, node = a_node(tmp_path, steps)
    assert fetched(node, held)[blob_of(VERSIONS[2])] == VERSIONS[2]
    assert world.jobs == []


def test_a_pulled_lease_brings_its_steps(tmp_path: Path) -> None:
    world, node = a_node(tmp_path, [])
    world.version_steps = [step(2), step(1)]
    asyncio.run(pull(node))
    assert node.steps == {LEASE: [step(2), step(1)]}


NAMES = st.sampled_from([BlobId(letter * 64) for letter in "abcd"])
STEPS = st.lists(
    st.builds(
        VersionStep, base=NAMES, result=NAMES, delta=NAMES, delta_bytes=st.integers(0, 2**40)
    ),
    max_size=8,
)


@settings(deadline=None)
@given(STEPS, NAMES, st.dictionaries(NAMES, st.integers(0, 2**40)))
def test_chosen_steps_always_lead_from_what_is_here_to_what_is_wanted_and_are_smaller(
    steps: list[VersionStep], wanted: BlobId, held: dict[BlobId, int]
) -> None:
    taken = steps_from(steps, wanted, held)
    if taken:
        assert taken[0].base in held
        assert taken[-1].result == wanted
        assert all(a.result == b.base for a, b in pairwise(taken))
        assert sum(one.delta_bytes for one in taken) < held[BlobId(taken[0].base)]
