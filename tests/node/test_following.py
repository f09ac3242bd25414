"""A node goes by the founder's newest word: whoever brings it, over restarts, and when a coordinator holds it back."""

import asyncio
from pathlib import Path

import pytest
from msgspec import structs
from node.scripted import NOW_MS, World, blob_of
from node.test_daemon import live, live_until
from protocol.samples import COORDINATOR, FOUNDER, NODE, policy

from kinoswarm_network.coordinator_client import CoordinatorClient
from kinoswarm_node import following, joining
from kinoswarm_node.context import NodeContext, program_version
from kinoswarm_node.daemon import Daemon
from kinoswarm_node.following import update_of
from kinoswarm_node.swarm_visit import Learning
from kinoswarm_node.why import explain
from kinoswarm_protocol.charter import Amendment
from kinoswarm_protocol.charter_chain import chain_of, open_chain
from kinoswarm_protocol.errors import BadSignature, HashMismatch, Unreachable, VersionMismatch
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import Hello, Machine, Welcome

NEW_KEY = KeyPair(b"\x21" * 32)


def joined(world: World) -> NodeContext:
    node = world.node()
    asyncio.run(joining.join(node))
    return node


def test_an_amended_policy_counts_and_why_tells_the_founders_words(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.amend(policy=structs.replace(policy(), delta_codec="int4.1"), notice="we moved")
    node = joined(world)
    assert node.the_charter().policy.delta_codec == "int4.1"
    why = explain(node.board.status, True, [], node.settings, NOW_MS)
    assert why.founder == ["amendment 1 changes the policy; says: we moved"]


def test_a_new_version_is_told_with_its_notes_and_nothing_is_fetched(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.amend(new_version="99.1.0", version_notes="less heat")
    state = live(Daemon(world.node(), once=True))
    assert state.accepted == 1, "a recommendation stops nobody"
    (told,) = [reason for reason in world.reasons if "99.1.0" in reason]
    assert "less heat" in told
    assert "nothing is fetched by itself" in told


def amendment(**fields: object) -> Amendment:
    return Amendment(number=1, previous_sha256="0" * 64, created_at_ms=1, **fields)  # type: ignore[arg-type]


def test_a_version_that_runs_already_is_not_told() -> None:
    assert update_of([amendment(new_version=program_version())], program_version()) == ""
    assert update_of([amendment(notice="hi")], "0.1.0") == ""
    newest_first = [amendment(new_version="0.2.0"), amendment(new_version="0.3.0")]
    assert "0.3.0" in update_of(newest_first, "0.1.0")


def test_an_amendment_that_asks_for_a_newer_program_bars_the_node_with_the_way_out(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.amend(min_version="99.0.0")
    daemon = Daemon(world.node())
    assert "needs version 99.0.0" in live(daemon).fault
    assert isinstance(daemon.error, VersionMismatch)


async def _hears_later(world: World) -> NodeContext:
    node = world.node()
    now = [NOW_MS]
    node.now_ms = lambda: now[0]
    await joining.join(node)
    world.amend(notice="later")
    await joining.greet_again(node)
    assert node.board.status.notices == [], "not asked yet"
    now[0] += joining.GREET_EVERY_MS
    await joining.greet_again(node)
    return node


def test_a_running_node_hears_of_an_amendment_by_itself(tmp_path: Path) -> None:
    node = asyncio.run(_hears_later(World(tmp_path)))
    assert node.board.status.notices == ["amendment 1 says: later"]


def test_a_running_node_ends_when_its_program_has_become_too_old(tmp_path: Path) -> None:
    world = World(tmp_path)
    daemon = Daemon(world.node())

    async def run() -> None:
        await joining.join(daemon.node)
        world.amend(min_version="99.0.0")
        daemon.node.greeted_at_ms -= joining.GREET_EVERY_MS
        await daemon._stay_in_touch()

    asyncio.run(run())
    assert isinstance(daemon.error, VersionMismatch)


def test_an_amended_key_ends_the_old_one(tmp_path: Path) -> None:
    world = World(tmp_path)
    node = joined(world)
    world.amend(coordinators=[NEW_KEY.peer_id], addresses=["http://127.0.0.1:9"])
    world.chains = [b"nonsense", world.chain()]
    world.signer = NEW_KEY

    async def greet() -> None:
        node.greeted_at_ms -= joining.GREET_EVERY_MS
        await joining.greet_again(node)

    asyncio.run(greet())
    assert node.client.coordinators == {NEW_KEY.peer_id}
    assert node.network.believed == (  # type: ignore[attr-defined]
        FOUNDER.peer_id,
        [NEW_KEY.peer_id],
        ["http://127.0.0.1:9"],
    )
    world.signer = COORDINATOR
    node.greeted_at_ms -= joining.GREET_EVERY_MS
    with pytest.raises(Unreachable, match="which is no coordinator"):
        asyncio.run(joining.greet_again(node))


def test_a_restarted_node_still_refuses_the_ended_key(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.amend(coordinators=[NEW_KEY.peer_id])
    world.chains, world.signer = [world.chain()], NEW_KEY
    joined(world)
    world.chains, world.signer = [], COORDINATOR
    live_until(Daemon(world.node()), world, "which is no coordinator")


def test_a_coordinator_that_holds_an_amendment_back_makes_nobody_forget_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.amend(notice="one")
    joined(world)
    world.amendments.clear()
    again = joined(world)
    assert again.chain is not None
    assert again.chain.number == 1


def test_a_torn_file_of_the_charter_is_told_anew(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.amend(notice="one")
    node = joined(world)
    kept = node.folder.text(following.CHAIN_NAME)
    assert kept is not None
    node.folder.keep_text(following.CHAIN_NAME, kept[: len(kept) // 2])
    again = joined(world)
    assert again.folder.text(following.CHAIN_NAME) == kept


def test_amendments_that_the_founder_did_not_sign_in_this_order_bar_joining(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.amend(notice="one")
    world.amend(notice="two")
    world.amendments.reverse()
    with pytest.raises((HashMismatch, BadSignature)):
        joined(world)


async def _learns(node: NodeContext) -> bool:
    await joining.join(node)
    return await following.learn(node)


def test_a_chain_of_another_swarm_teaches_nothing(tmp_path: Path) -> None:
    other = World(tmp_path / "other", charter_changes={"name": "Other"})
    other.amend(coordinators=[NEW_KEY.peer_id])
    world = World(tmp_path / "one")
    world.chains = [other.chain(), b"", chain_of(world.charter_raw)]
    node = world.node()
    assert not asyncio.run(_learns(node))
    assert node.chain == open_chain(chain_of(world.charter_raw), world.swarm)


class Address:
    """A web address of an older invite."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    async def charter_chain(self) -> bytes:
        return self.raw


def test_a_visitor_with_an_older_invite_finds_the_new_key(tmp_path: Path) -> None:
    world = World(tmp_path)
    old = world.chain()
    world.amend(coordinators=[NEW_KEY.peer_id])
    world.signer = NEW_KEY
    client = CoordinatorClient(NODE, world.swarm, [COORDINATOR.peer_id], [world])
    addresses = [Address(world.chain()), Address(old), Address(b"nonsense")]
    client.learn = Learning(client, addresses).learn  # type: ignore[arg-type]
    asyncio.run(client.ask(HELLO, Welcome))
    assert client.coordinators == {NEW_KEY.peer_id}
    world.signer = KeyPair(b"\x22" * 32)
    with pytest.raises(Unreachable, match="which is no coordinator"):
        asyncio.run(client.ask(HELLO, Welcome))


HELLO = Hello(
    pseudonym="v",
    program_version="0.1.0",
    machine=Machine(device="cpu", memory_gib=1.0, seconds_per_step=0.1),
    addresses=[],
)


def test_a_node_serves_the_amended_charter_and_lets_the_older_one_go(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.amend(notice="one")
    node = joined(world)
    first = node.chain_blob
    assert first == blob_of(world.chain())
    assert following.served_chains(node) == [first]
    world.amend(notice="two")
    node.greeted_at_ms -= joining.GREET_EVERY_MS
    asyncio.run(joining.greet_again(node))
    assert following.served_chains(node) == [blob_of(world.chain())]
    assert node.network.unpinned == [first]  # type: ignore[attr-defined]


def test_a_founding_charter_alone_is_served_by_no_node(tmp_path: Path) -> None:
    assert following.served_chains(joined(World(tmp_path))) == []
