"""A DHT where lies do not survive: writers who replay, flood and grind, peers that are killed, a parted swarm."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from network.peers import COORDINATOR, FOUNDER, SWARM, Stranger, now_ms

from kinoswarm_network import directory as directory_module
from kinoswarm_network.directory import Directory
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.limits import MAX_RECORDS_PER_KEY, MIB, NODE_BUCKETS
from kinoswarm_protocol.records import (
    RELEASE_KEY,
    Authority,
    ExpertRecord,
    NodeRecord,
    ReleaseRecord,
    SealedRecord,
    announce_again,
    bucket_of,
    expert_key,
    newest,
    node_key,
    open_record,
    seal_record,
)

AUTHORITY = Authority(SWARM, FOUNDER.peer_id, frozenset([COORDINATOR.peer_id]))
BLOB = BlobId("cd" * 32)
BODY = NodeRecord(
    pseudonym="x" * 64,
    device="y" * 64,
    state="training",
    cluster=4_000,
    program_version="0.1.0",
)


@dataclass
class Peer:
    """A real host with our directory on it, in the test's own process."""

    stranger: Stranger
    directory: Directory
    alive: bool = True

    async def join(self, other: "Peer") -> None:
        await self.stranger.host.connect(other.stranger.peer_id, other.stranger.addresses)
        await self.directory.join(other.stranger.peer_id)
        await self.directory.meet_neighbours()

    async def stop(self) -> None:
        if self.alive:  # a dead daemon answers no goodbye
            await self.directory.stop()
        await self.stranger.host.stop()

    def kill(self) -> None:
        """kill -9 of its daemon: nobody is told."""
        self.alive = False
        self.stranger.host.daemon.kill()

    async def newest_release(self) -> int:
        """The version that this peer believes in; 0 when it finds none."""
        found = [open_record(raw, AUTHORITY) for raw in await self.directory.look_up(RELEASE_KEY)]
        best = newest(found, now_ms())
        return best.body.version if best else 0


@asynccontextmanager
async def peers(folder: Path, count: int) -> AsyncIterator[list[Peer]]:
    """So many peers that don't know each other yet."""
    started: list[Peer] = []
    try:
        for number in range(count):
            home = folder / str(number)
            home.mkdir(parents=True)
            stranger = await Stranger.start(home)
            try:
                directory = await Directory.start(stranger.host, AUTHORITY, client_mode=False)
            except BaseException:
                await stranger.host.stop()
                raise
            started.append(Peer(stranger, directory))
        yield started
    finally:
        for peer in started:
            await peer.stop()


def new_key() -> KeyPair:
    return KeyPair(os.urandom(32))


async def meet(group: list[Peer]) -> None:
    for peer in group[1:]:
        await peer.join(group[0])


def release(version: int) -> SealedRecord:
    return seal_record(COORDINATOR, SWARM, ReleaseRecord(version=version, blob=BLOB), now_ms())


def ground_keys(bucket: int, count: int) -> list[KeyPair]:
    """Keys made until enough of them fall into one bucket."""
    found: list[KeyPair] = []
    while len(found) < count:
        key = new_key()
        if bucket_of(key.peer_id, NODE_BUCKETS) == bucket:
            found.append(key)
    return found


async def push(writer: Any, parts: Any, victim: PeerId, record: SealedRecord) -> bool:
    """What a writer without any rules of its own says to one peer; whether that peer kept it."""
    answer = await writer.protocol.call_store(
        parts.PeerID.from_base58(victim),
        keys=[parts.DHTID.generate(record.key)],
        values=[parts.MSGPackSerializer.dumps(record.value)],
        expiration_time=[record.expires_at_ms / 1000],
        subkeys=[record.subkey],
    )
    return bool(answer and answer[0])


@asynccontextmanager
async def attacked(folder: Path) -> AsyncIterator[tuple[Peer, Any, Any]]:
    """(victim, a writer's DHT without a validator that the victim knows, hivemind's names)."""
    async with peers(folder, 1) as (victim,):
        stranger = await Stranger.start(_made(folder / "writer"))
        writer = await stranger.dht()
        try:
            await stranger.host.connect(victim.stranger.peer_id, victim.stranger.addresses)
            parts = stranger.host.parts
            await writer.protocol.call_ping(parts.PeerID.from_base58(victim.stranger.peer_id))
            yield victim, writer, parts
        finally:
            await writer.shutdown()
            await stranger.host.stop()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_an_old_release_said_again_never_hides_the_newest(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    async def attack() -> None:
        async with attacked(tmp_path) as (victim, writer, parts):
            old, new = release(1), release(2)
            peer = victim.stranger.peer_id
            assert await push(writer, parts, peer, new)
            later = announce_again(open_record(old.value, AUTHORITY), now_ms() + 5_000)
            assert later.expires_at_ms > new.expires_at_ms
            assert await push(writer, parts, peer, later)  # validly signed, and only a hint
            assert await victim.newest_release() == 2

    runner.run(attack())


def test_a_nodes_record_does_not_outlive_its_signed_time(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    async def attack() -> None:
        async with attacked(tmp_path) as (victim, writer, parts):
            key = new_key()
            past = seal_record(key, SWARM, BODY, now_ms() - 85_000)
            forever = SealedRecord(past.key, past.subkey, past.value, now_ms() + 600_000)
            assert not await push(writer, parts, victim.stranger.peer_id, forever)
            assert await victim.directory.look_up(past.key) == []

    runner.run(attack())


def test_a_flood_of_ground_ids_fills_one_bucket_to_its_bound_and_hides_nobody_there(
    runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "MAX_RECORDS_PER_KEY", 8)

    async def attack() -> None:
        async with attacked(tmp_path) as (victim, writer, parts):
            honest, peer = new_key(), victim.stranger.peer_id
            bucket = bucket_of(honest.peer_id, NODE_BUCKETS)
            at_home = seal_record(honest, SWARM, BODY, now_ms())
            assert await push(writer, parts, peer, at_home)
            flood = [seal_record(k, SWARM, BODY, now_ms()) for k in ground_keys(bucket, 12)]
            kept = [await push(writer, parts, peer, record) for record in flood]
            assert sum(kept) == 7
            again = seal_record(honest, SWARM, BODY, now_ms() + 1_000)
            assert await push(writer, parts, peer, again)  # who is there already stays
            found = await victim.directory.look_up(node_key(honest.peer_id))
            assert len(found) == 8
            assert again.value in found
            other = next(
                k for k in iter(new_key, None) if bucket_of(k.peer_id, NODE_BUCKETS) != bucket
            )
            assert await push(writer, parts, peer, seal_record(other, SWARM, BODY, now_ms()))

    runner.run(attack())


async def survive_kills(folder: Path, count: int, killed: int) -> None:
    """Kill -9 on some daemons; the survivors say again what they hold, and everybody finds everything."""
    async with peers(folder, count) as group:
        await meet(group)
        bodies = [ExpertRecord(cluster=c, lineage=0, version=7, checkpoint=BLOB) for c in range(8)]
        records = [seal_record(COORDINATOR, SWARM, body, now_ms()) for body in bodies]
        chosen = random.Random(3)
        for record in [*records, release(1)]:
            assert await chosen.choice(group).directory.announce(record)
        dead = group[:killed]  # with the one that all others started from
        for peer in dead:
            peer.kill()
        alive = group[killed:]
        for record in [*records, release(1)]:
            held = announce_again(open_record(record.value, AUTHORITY), now_ms() + 1_000)
            await chosen.choice(alive).directory.announce(held)
        for peer in alive:
            assert await peer.newest_release() == 1
        for body in bodies:
            found = await chosen.choice(alive).directory.look_up(expert_key(body.cluster, 0))
            assert len(found) == 1


def test_records_survive_when_a_third_of_the_peers_is_killed(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    runner.run(survive_kills(tmp_path, count=6, killed=2))


@pytest.mark.slow
def test_records_survive_when_eight_of_twenty_peers_are_killed(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    runner.run(survive_kills(tmp_path, count=20, killed=8))


async def heal(folder: Path, count: int) -> None:
    """Two halves that never met, each with its own truth; one introduction makes them one."""
    async with peers(folder, count) as group:
        left, right = group[: count // 2], group[count // 2 :]
        await meet(left)
        await meet(right)
        await left[-1].directory.announce(release(1))
        await right[-1].directory.announce(release(2))
        assert [await peer.newest_release() for peer in left] == [1] * len(left)
        assert [await peer.newest_release() for peer in right] == [2] * len(right)
        for peer in right:
            await peer.join(left[0])
        held = announce_again(open_record(release(2).value, AUTHORITY), now_ms() + 1_000)
        await right[0].directory.announce(held)
        assert [await peer.newest_release() for peer in group] == [2] * count


def test_a_partition_heals_to_the_newest_release(runner: asyncio.Runner, tmp_path: Path) -> None:
    runner.run(heal(tmp_path, count=4))


@pytest.mark.slow
def test_a_large_partition_heals_to_the_newest_release(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    runner.run(heal(tmp_path, count=20))


def test_a_directory_of_ten_thousand_nodes_keeps_every_bucket_in_one_reply() -> None:
    """The largest records that a node may sign, spread as ids spread themselves."""
    sizes = [0] * NODE_BUCKETS
    counts = [0] * NODE_BUCKETS
    largest = len(seal_record(new_key(), SWARM, BODY, now_ms()).value)
    for _ in range(10_000):
        bucket = bucket_of(new_key().peer_id, NODE_BUCKETS)
        counts[bucket] += 1
        sizes[bucket] += largest + 96  # subkey, expiry and their framing
    assert max(counts) < MAX_RECORDS_PER_KEY
    assert max(sizes) < 4 * MIB / 2  # hivemind drops replies over 4 MiB


def test_looking_up_ever_new_keys_leaves_nothing_in_memory(tmp_path: Path) -> None:
    """Every blob is looked for under four keys of its own: what each leaves adds up in a node that runs for months."""

    async def go() -> None:
        async with peers(tmp_path, 2) as group:
            await meet(group)
            for number in range(3):
                await group[1].directory.providers_of(BlobId(f"{number:064x}"), enough=1)
            assert not group[1].directory._node.pending_get_requests

    asyncio.run(go())
