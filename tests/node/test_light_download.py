"""`kinoswarm download --light` as a user runs it, from real peers; hivemind and torch can't even be imported there."""

import asyncio
import os
import sys
import time
from pathlib import Path

import msgspec
import pytest
from msgspec import structs
from network.peers import config
from node.test_release_download import FILES, Publisher
from protocol.samples import COORDINATOR, FOUNDER, NODE, SWARM, invite

from kinoswarm_network.client import NetworkClient, OnControl
from kinoswarm_network.identity import key_text
from kinoswarm_node.keeping import kept_records
from kinoswarm_node.lookup_desk import LookupDesk
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.errors import Refused
from kinoswarm_protocol.ids import PeerId
from kinoswarm_protocol.invite import write_invite
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import REPLY, REQUEST, AskStatus, Lookup, Records, Reply, Request
from kinoswarm_protocol.records import RELEASE_KEY, ReleaseRecord, seal_record

NOW_MS = 1_700_000_000_000
BLOCKER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hivemind", "torch", "numpy"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
"""
DEAD_COORDINATOR = f"/ip4/127.0.0.1/tcp/1/p2p/{COORDINATOR.peer_id}"


def release_records() -> list[bytes]:
    """The release that Publisher makes, announced just now."""
    *_, table = Publisher().blobs
    record = ReleaseRecord(version=1, blob=table)
    return [seal_record(COORDINATOR, SWARM, record, int(time.time() * 1000)).value]


async def serving(folder: Path, key: KeyPair, desk: OnControl) -> NetworkClient:
    """A real peer with every blob of a release."""
    folder.mkdir(parents=True)
    (folder / "key").write_text(key_text(key))
    client = await NetworkClient.start(config(folder, swarm=SWARM), desk)
    publisher = Publisher()
    for name, data in publisher.blobs.items():
        (folder / name).write_bytes(data)
        assert await client.add_blob(folder / name) == name
    return client


async def download(folder: Path, addresses: list[str], *more: str) -> tuple[int | None, str]:
    """Exit status and everything that was said."""
    blocker = folder / "blocker"
    blocker.mkdir(exist_ok=True)
    (blocker / "sitecustomize.py").write_text(BLOCKER)
    text = write_invite(FOUNDER, structs.replace(invite(), swarm=SWARM, addresses=addresses))
    command = ("-m", "kinoswarm_cli.main", "download", text, "--out", str(folder / "model"))
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *(*command, "--light", *more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(blocker), *sys.path])},
    )
    said, _ = await program.communicate()
    return program.returncode, said.decode()


async def coordinators_desk(peer: PeerId, raw: bytes) -> bytes:
    request = open_envelope(raw, REQUEST, SWARM).body
    assert isinstance(request.body, Lookup)
    records = release_records() if request.body.key == RELEASE_KEY else []
    reply = Reply(request_id=request.request_id, time_ms=NOW_MS, body=Records(records=records))
    return seal(COORDINATOR, REPLY, SWARM, reply)


def holds_the_release(folder: Path) -> bool:
    return {name: (folder / "model" / name).read_bytes() for name in FILES} == FILES


def test_a_release_comes_from_a_coordinators_peer_without_hivemind_or_torch(tmp_path: Path) -> None:
    async def scenario() -> tuple[int | None, str]:
        client = await serving(tmp_path / "coordinator", COORDINATOR, coordinators_desk)
        try:
            return await download(tmp_path, ["http://127.0.0.1:1", *client.addresses])
        finally:
            await client.stop()

    code, said = asyncio.run(scenario())
    assert code == 0, said
    assert holds_the_release(tmp_path)
    assert "all verified" in said


def test_with_the_coordinator_gone_a_volunteers_node_gives_records_and_bytes(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "swarm"
    kept.mkdir()
    (kept / "kept-records.bin").write_bytes(msgspec.msgpack.encode(release_records()))
    desk = LookupDesk(NODE, SWARM, kept, lambda: NOW_MS)

    async def scenario() -> tuple[int | None, str]:
        node = await serving(tmp_path / "node", NODE, desk.answer)
        try:
            return await download(tmp_path, [DEAD_COORDINATOR], "--peer", node.addresses[0])
        finally:
            await node.stop()

    code, said = asyncio.run(scenario())
    assert code == 0, said
    assert holds_the_release(tmp_path)


def test_nobody_to_ask_is_told_with_what_to_do(tmp_path: Path) -> None:
    code, said = asyncio.run(download(tmp_path, [DEAD_COORDINATOR]))
    assert code == 4, said
    assert "nobody listens there" in said
    assert "--peer" in said


def test_an_invite_without_peers_is_told_to_leave_light_out(tmp_path: Path) -> None:
    code, said = asyncio.run(download(tmp_path, ["http://127.0.0.1:1"]))
    assert code == 3
    assert "leave --light out" in said


def test_a_node_answers_look_ups_and_refuses_everything_else(tmp_path: Path) -> None:
    desk = LookupDesk(NODE, SWARM, tmp_path, lambda: NOW_MS)
    request = seal(NODE, REQUEST, SWARM, Request(request_id="1" * 32, body=AskStatus()))
    with pytest.raises(Refused, match="not a coordinator"):
        asyncio.run(desk.answer(NODE.peer_id, request))


@pytest.mark.parametrize("damage", [b"", b"\x91\xc4\x03abc", b"nonsense"])
def test_a_damaged_file_of_records_is_an_empty_answer(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "kept-records.bin").write_bytes(damage)
    assert kept_records(tmp_path, RELEASE_KEY) == []
    assert kept_records(tmp_path, "expert/0/0") == []
