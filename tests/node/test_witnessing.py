"""Nodes compare the ends of the log that they were shown: two histories leave evidence that anybody can check."""

import asyncio
from pathlib import Path

import pytest
from node.scripted import NOW_MS, World
from protocol.samples import COORDINATOR, FOUNDER, NODE

from kinoswarm_node import joining
from kinoswarm_node.context import NodeContext
from kinoswarm_node.witnessing import (
    CONFLICTS_NAME,
    HEADS_NAME,
    MAX_HEADS,
    kept_heads,
    witness,
)
from kinoswarm_protocol.envelope import seal
from kinoswarm_protocol.ids import SwarmId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.log_head import LOG_HEAD, LOG_KEY, LogHead, Mark
from kinoswarm_protocol.messages import Lookup
from kinoswarm_protocol.records import WitnessRecord, seal_record, witness_keys


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def node(world: World) -> NodeContext:
    found = world.node()
    asyncio.run(joining.join(found))
    return found


def head(
    swarm: str, seq: int, history: str = "a", epoch: int = 1, by: KeyPair = COORDINATOR
) -> bytes:
    marks = [Mark(seq=64, hash=f"40{history}".rjust(64, "0"))] if seq > 64 else []
    body = LogHead(
        seq=seq, hash=f"{seq:x}{history}".rjust(64, "0"), epoch=epoch, at_ms=5, marks=marks
    )
    return seal(by, LOG_HEAD, SwarmId(swarm), body)


def told(world: World, node: NodeContext, raw: bytes, by: KeyPair = FOUNDER) -> None:
    """Another node says in the DHT what it was shown."""
    record = seal_record(by, SwarmId(world.swarm), WitnessRecord(head=raw), NOW_MS).value
    for key in witness_keys():
        node.network.dht.setdefault(key, []).append(record)


def look(world: World, node: NodeContext, shown: bytes | None = None) -> None:
    world.records[LOG_KEY] = [shown] if shown else []
    asyncio.run(witness(node))


def test_the_end_that_was_shown_is_kept_and_said(world: World, node: NodeContext) -> None:
    shown = head(world.swarm, 70)
    look(world, node, shown)
    assert kept_heads(node.folder.root) == [shown]
    assert node.network.again[-1].startswith("witness/")
    assert "event 70" in node.board.status.log_seen
    assert node.board.status.log_conflict == ""


def test_two_histories_of_two_groups_are_found_by_a_row_that_both_state(
    world: World, node: NodeContext
) -> None:
    ours, theirs = head(world.swarm, 70), head(world.swarm, 90, "b")
    told(world, node, theirs)
    look(world, node, ours)
    assert "signed two different histories" in node.board.status.log_conflict
    assert "event 64" in node.board.status.log_conflict
    assert set(kept_heads(node.folder.root)) == {ours, theirs}, "evidence for whoever asks"


def test_evidence_survives_a_restart_and_a_coordinator_that_falls_silent(
    world: World, node: NodeContext
) -> None:
    told(world, node, head(world.swarm, 90, "b"))
    look(world, node, head(world.swarm, 70))
    again = world.node()
    again.charter = node.charter
    world.fail_asks += [Lookup]
    asyncio.run(witness(again))
    assert again.board.status.log_conflict == node.board.status.log_conflict


def test_a_history_that_changes_between_two_looks_is_found_by_one_node_alone(
    world: World, node: NodeContext
) -> None:
    look(world, node, head(world.swarm, 70))
    look(world, node, head(world.swarm, 80, "b", epoch=2))
    assert "between its leaders 1 and 2" in node.board.status.log_conflict


def test_one_history_at_different_ends_is_no_conflict(world: World, node: NodeContext) -> None:
    told(world, node, head(world.swarm, 90))
    look(world, node, head(world.swarm, 70))
    assert node.board.status.log_conflict == ""
    assert "1 other nodes" in node.board.status.log_seen


def test_what_no_coordinator_signed_is_no_evidence(world: World, node: NodeContext) -> None:
    told(world, node, head(world.swarm, 90, "b", by=NODE))
    told(world, node, b"no head at all")
    node.network.dht.setdefault(witness_keys()[0], []).append(b"no record at all")
    look(world, node, head(world.swarm, 70))
    assert node.board.status.log_conflict == ""
    assert not (node.folder.root / CONFLICTS_NAME).exists()


def test_what_is_kept_is_bounded_and_a_damaged_file_is_an_empty_one(
    world: World, node: NodeContext
) -> None:
    for seq in range(1, MAX_HEADS + 5):
        look(world, node, head(world.swarm, seq))
    assert (node.folder.root / HEADS_NAME).stat().st_size < 64 * 1024
    (node.folder.root / HEADS_NAME).write_bytes(b"\xff torn")
    look(world, node, head(world.swarm, 200))
    assert kept_heads(node.folder.root) == [head(world.swarm, 200)]
