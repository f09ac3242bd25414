"""Real peers talk: control requests, DHT records, and everything that a stranger may try."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from network.peers import (
    COORDINATOR,
    FOUNDER,
    NOBODY,
    SWARM,
    Nodes,
    Stranger,
    config,
    echo,
    now_ms,
)

from kinoswarm_network.client import NetworkClient
from kinoswarm_network.identity import load_key
from kinoswarm_network.stream_frames import No, blob_protocol, control_protocol, read_reply_head
from kinoswarm_network.streams import Stream
from kinoswarm_protocol.errors import (
    BadSignature,
    Code,
    LimitExceeded,
    MalformedBytes,
    Refused,
    Unreachable,
)
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.limits import MAX_CONTROL_FRAME, MAX_INBOUND_STREAMS_PER_PEER
from kinoswarm_protocol.records import (
    CharterRecord,
    ExpertRecord,
    NodeRecord,
    ReleaseRecord,
    SealedRecord,
    expert_key,
    newest,
    node_key,
    seal_record,
)

BLOB = BlobId("cd" * 32)
UNDIALLED = KeyPair(bytes(range(9, 41))).peer_id
"""Nobody, and no other test dials it: libp2p does not try again so soon who did not answer."""
NODE_BODY = NodeRecord(
    pseudonym="heron", device="RTX 3060", state="training", cluster=3, program_version="0.1.0"
)


def test_a_peer_id_is_the_key_and_addresses_end_in_it(nodes: Nodes) -> None:
    key = load_key(nodes.folder / "first" / "key")
    assert nodes.first.peer_id == key.peer_id
    assert all(address.endswith(f"/p2p/{key.peer_id}") for address in nodes.first.addresses)


def test_a_peer_that_asks_too_often_is_told_to_wait_and_others_are_not(
    runner: asyncio.Runner, nodes: Nodes, tmp_path: Path
) -> None:
    async def hammer() -> bytes:
        asked = await NetworkClient.start(
            config(tmp_path, control_per_s=0.01, control_burst=3, bootstrap=[]), echo
        )
        try:
            for _ in range(3):
                await nodes.second.control(asked.peer_id, asked.addresses, b"x")
            with pytest.raises(Refused, match=r"ask again in \d+ s") as refused:
                await nodes.second.control(asked.peer_id, asked.addresses, b"x")
            assert refused.value.code == Code.RATE_LIMITED
            return await nodes.third.control(asked.peer_id, asked.addresses, b"x")
        finally:
            await asked.stop()

    assert runner.run(hammer()).endswith(b"asked x")


def test_the_first_node_and_those_that_join_it_report_no_problem(nodes: Nodes) -> None:
    assert nodes.first.bootstrap_report.reports == []
    assert nodes.second.bootstrap_report.ok
    assert nodes.second.bootstrap_report.in_words() == ""


def test_a_request_is_answered_by_the_peers_service_which_knows_who_asks(
    runner: asyncio.Runner, nodes: Nodes
) -> None:
    answer = runner.run(nodes.second.control(nodes.first.peer_id, nodes.first.addresses, b"x"))
    assert answer == nodes.second.peer_id.encode() + b" asked x"
    assert nodes.first.host_of(nodes.second.peer_id) == "127.0.0.1"
    assert nodes.first.host_of(FOUNDER.peer_id) == "", "who never asked; any of the nodes may have"


def test_peers_that_share_a_bootstrap_node_find_each_other_without_addresses(
    runner: asyncio.Runner, nodes: Nodes
) -> None:
    answer = runner.run(nodes.second.control(nodes.third.peer_id, [], b"y"))
    assert answer.endswith(b"asked y")


def test_forty_large_requests_at_once_lose_nothing(runner: asyncio.Runner, nodes: Nodes) -> None:
    requests = [os.urandom(100_000) for _ in range(40)]

    async def ask_all() -> list[bytes]:
        gate = asyncio.Semaphore(MAX_INBOUND_STREAMS_PER_PEER // 2)

        async def one(request: bytes) -> bytes:
            async with gate:
                return await nodes.third.control(nodes.first.peer_id, [], request)

        return await asyncio.gather(*map(one, requests))

    for request, answer in zip(requests, runner.run(ask_all()), strict=True):
        assert answer.endswith(request)


def test_a_refusal_arrives_with_its_code_and_sentence(runner: asyncio.Runner, nodes: Nodes) -> None:
    with pytest.raises(Refused, match="this lease was used already") as caught:
        runner.run(nodes.second.control(nodes.first.peer_id, [], b"refuse"))
    assert caught.value.code == Code.LEASE_USED


def test_what_is_wrong_on_a_peers_machine_is_not_told(runner: asyncio.Runner, nodes: Nodes) -> None:
    with pytest.raises(Refused, match="a problem of its own") as caught:
        runner.run(nodes.second.control(nodes.first.peer_id, [], b"break"))
    assert "secret" not in str(caught.value)


def test_an_oversize_request_never_leaves(runner: asyncio.Runner, nodes: Nodes) -> None:
    with pytest.raises(LimitExceeded, match="at most"):
        runner.run(nodes.second.control(nodes.first.peer_id, [], bytes(MAX_CONTROL_FRAME + 1)))


def test_a_peer_that_nobody_knows_is_unreachable(runner: asyncio.Runner, nodes: Nodes) -> None:
    with pytest.raises(Unreachable, match=f"{FOUNDER.peer_id}: no address of it is known"):
        runner.run(nodes.second.control(FOUNDER.peer_id, [], b"hello"))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (f"/ip4/127.0.0.1/tcp/1/p2p/{UNDIALLED}", "connection refused"),
        ("/ip4/127.0.0.1/tcp/1", "does not end in /p2p/"),
        ("http://example.org", "used over HTTP instead"),
        ("/ip4/127.0.0.1/tcp/1/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN", "Ed25519"),
        ("nonsense", "not a multiaddress"),
        ("/ip4/999.0.0.1/tcp/1/p2p/" + FOUNDER.peer_id, "not a multiaddress"),
    ],
)
def test_a_bad_address_is_reported_in_plain_words(
    runner: asyncio.Runner, nodes: Nodes, address: str, words: str
) -> None:
    report = runner.run(nodes.second.connect([address]))
    assert not report.ok
    assert words in report.in_words()


def test_a_good_address_works_beside_bad_ones(runner: asyncio.Runner, nodes: Nodes) -> None:
    report = runner.run(nodes.second.connect([NOBODY, *nodes.first.addresses]))
    assert report.ok
    assert [bool(one.problem) for one in report.reports] == [True, False]
    assert report.reports[1].clock_ahead_ms == 0


def test_somebody_else_at_an_address_is_not_taken_for_the_peer(
    runner: asyncio.Runner, nodes: Nodes
) -> None:
    address = nodes.first.addresses[0].replace(nodes.first.peer_id, COORDINATOR.peer_id)
    report = runner.run(nodes.second.connect([address]))
    assert "somebody else answers at this address" in report.in_words()


# --- records ------------------------------------------------------------------------------------


def test_a_record_is_found_by_another_peer(runner: asyncio.Runner, nodes: Nodes) -> None:
    key = load_key(nodes.folder / "second" / "key")
    assert runner.run(nodes.second.announce(seal_record(key, SWARM, NODE_BODY, now_ms())))
    found = runner.run(nodes.third.look_up(node_key(key.peer_id)))
    assert key.peer_id in [record.signer for record in found]


def test_the_highest_version_is_found_whoever_announces_it_and_when(
    runner: asyncio.Runner, nodes: Nodes
) -> None:
    sealed = {
        version: seal_record(
            COORDINATOR,
            SWARM,
            ExpertRecord(cluster=1, lineage=0, version=version, checkpoint=BLOB),
            now_ms(),
        )
        for version in (1, 2, 3)
    }
    for version, node in ((3, nodes.second), (1, nodes.first), (2, nodes.third)):
        assert runner.run(node.announce(sealed[version]))
    for node in (nodes.first, nodes.second, nodes.third):
        best = newest(runner.run(node.look_up(expert_key(1, 0))), now_ms())
        assert best is not None
        assert best.body.version == 3


def test_an_unknown_key_has_no_records(runner: asyncio.Runner, nodes: Nodes) -> None:
    assert runner.run(nodes.second.look_up(expert_key(9, 0))) == []


def test_a_record_that_breaks_the_rules_is_not_even_announced(
    runner: asyncio.Runner, nodes: Nodes
) -> None:
    forged = seal_record(KeyPair(bytes(32)), SWARM, ReleaseRecord(version=1, blob=BLOB), now_ms())
    with pytest.raises(BadSignature, match="who is no coordinator"):
        runner.run(nodes.second.announce(forged))


def test_an_amendments_coordinator_counts_once_it_is_known(
    runner: asyncio.Runner, nodes: Nodes
) -> None:
    fresh = KeyPair(bytes(range(5, 37)))
    sealed = seal_record(
        fresh, SWARM, ExpertRecord(cluster=2, lineage=0, version=1, checkpoint=BLOB), now_ms()
    )
    everybody = (nodes.first, nodes.second, nodes.third)

    async def know(coordinators: list[PeerId]) -> None:
        for node in everybody:
            await node.set_authority(FOUNDER.peer_id, coordinators)

    runner.run(know([COORDINATOR.peer_id, fresh.peer_id]))
    assert runner.run(nodes.second.announce(sealed))
    assert len(runner.run(nodes.third.look_up(expert_key(2, 0)))) == 1
    runner.run(know([COORDINATOR.peer_id]))
    assert runner.run(nodes.third.look_up(expert_key(2, 0))) == []


# --- strangers ----------------------------------------------------------------------------------


def test_a_stranger_cannot_store_what_the_table_forbids(
    runner: asyncio.Runner, nodes: Nodes, stranger: Stranger
) -> None:
    honest = seal_record(FOUNDER, SWARM, CharterRecord(number=1, blob=BLOB), now_ms())
    soon = now_ms() / 1000 + 600
    far = now_ms() / 1000 + 10**7

    async def attack() -> list[bool]:
        await nodes.first.announce(honest)
        dht = await stranger.dht()
        await stranger.host.connect(nodes.first.peer_id, nodes.first.addresses)
        first = stranger.host.parts.PeerID.from_base58(nodes.first.peer_id)
        assert await dht.protocol.call_ping(first) is not None

        async def store(record: SealedRecord, **changes: Any) -> bool:
            subkey = changes.get("subkey", record.subkey)
            value = changes.get("value", record.value)
            expiry = changes.get("expiry", record.expires_at_ms / 1000)
            key = stranger.host.parts.DHTID.generate(changes.get("key", record.key))
            packed = stranger.host.parts.MSGPackSerializer.dumps(value)
            answer = await dht.protocol.call_store(
                first, keys=[key], values=[packed], expiration_time=[expiry], subkeys=[subkey]
            )
            return bool(answer and answer[0])

        forged = seal_record(stranger.key, SWARM, CharterRecord(number=9, blob=BLOB), now_ms())
        allowed = seal_record(FOUNDER, SWARM, CharterRecord(number=2, blob=BLOB), now_ms())
        outcomes = [
            await store(honest, expiry=far),
            await store(honest, subkey=None, expiry=soon),
            await store(honest, subkey=7, expiry=soon),
            await store(honest, key="release", expiry=soon),
            await store(honest, value=b"x" * 3000, expiry=soon),
            await store(honest, value=["not", "bytes"], expiry=soon),
            await store(honest, expiry=float("nan")),
            await store(honest, expiry=float("inf")),
            await store(forged),
            await store(allowed),
        ]
        await dht.shutdown()
        return outcomes

    assert runner.run(attack()) == [False] * 9 + [True]
    best = newest(runner.run(nodes.second.look_up("charter")), now_ms())
    assert best is not None
    assert best.body.number == 2


@pytest.mark.parametrize("protocol", [control_protocol(SWARM), blob_protocol(SWARM)])
@pytest.mark.parametrize("garbage", [b"", b"\xff" * 4, b"\x00\x00\x00\x05hello", b"\x00" * 5000])
def test_garbage_on_a_stream_harms_nobody_else(
    runner: asyncio.Runner, nodes: Nodes, stranger: Stranger, protocol: str, garbage: bytes
) -> None:
    async def attack() -> bytes:
        stream = await stranger.host.open_stream(
            nodes.first.peer_id, nodes.first.addresses, protocol
        )
        async with stream:
            if garbage:
                await stream.send_raw(garbage, 1.0)
        return await nodes.second.control(nodes.first.peer_id, [], b"alive?")

    assert runner.run(attack()).endswith(b"alive?")


def test_a_peer_with_too_many_streams_is_told_so(
    runner: asyncio.Runner, nodes: Nodes, stranger: Stranger
) -> None:
    async def open_many() -> list[Stream]:
        return [
            await stranger.host.open_stream(
                nodes.third.peer_id, nodes.third.addresses, blob_protocol(SWARM)
            )
            for _ in range(MAX_INBOUND_STREAMS_PER_PEER + 1)
        ]

    async def attack() -> Any:
        streams = await open_many()
        try:
            receive = [asyncio.create_task(stream.receive(2_048, 5.0)) for stream in streams]
            done, pending = await asyncio.wait(receive, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            return read_reply_head(done.pop().result())
        finally:
            for stream in streams:
                await stream.close()

    head = runner.run(attack())
    assert isinstance(head, No)
    assert head.code == Code.OVERLOADED


def test_a_service_that_lies_about_its_answer_is_refused(
    runner: asyncio.Runner, nodes: Nodes, stranger: Stranger
) -> None:
    async def lie(stream: Stream) -> None:
        await stream.receive(MAX_CONTROL_FRAME, 1.0)
        await stream.send(b"\x93\x01\x02\x03", 1.0)

    runner.run(stranger.serve(control_protocol(SWARM), lie))
    with pytest.raises(MalformedBytes):
        runner.run(nodes.second.control(stranger.peer_id, stranger.addresses, b"hello"))
