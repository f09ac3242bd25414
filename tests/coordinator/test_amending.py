"""The founder amends: what is signed, how a running coordinator follows, when a key ends, what everybody may read."""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from coordinator.founded_folder import founded_folder
from coordinator.small_swarm import SmallSwarm
from msgspec import structs
from protocol.samples import COORDINATOR, FOUNDER, NODE
from typer.testing import CliRunner

from kinoswarm_cli.swarm_commands import app
from kinoswarm_coordinator.amending import Changes, adopt_next_key, amend_swarm
from kinoswarm_coordinator.amendment_watch import AmendmentWatch
from kinoswarm_coordinator.charter_file import read_chain, write_charter_file
from kinoswarm_coordinator.event_log import MemoryLog
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.queries import actions
from kinoswarm_coordinator.serve import founded_service, read_founding
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.settings import load_settings
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.identity import load_key
from kinoswarm_protocol.charter import AMENDMENT, Amendment
from kinoswarm_protocol.charter_chain import OpenedChain, lengthen, open_chain
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.errors import Code, KinoswarmError, LocalError, MalformedBytes
from kinoswarm_protocol.ids import PeerId
from kinoswarm_protocol.invite import read_invite
from kinoswarm_protocol.messages import (
    REPLY,
    REQUEST,
    Hello,
    Machine,
    PullLease,
    Refusal,
    Request,
    Welcome,
)
from kinoswarm_protocol.records import CHARTER_KEY, Authority, CharterRecord, open_record
from kinoswarm_protocol.specs import ModeSpec

NOW_MS = 1_700_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> SwarmFolder:
    """What `swarm create` leaves, without the training."""
    return founded_folder(tmp_path)


def chain_in(folder: SwarmFolder) -> OpenedChain:
    return read_chain(folder, read_invite(folder.invite.read_text()).body.swarm)[0]


@dataclass
class Authorities:
    """The network process, of which only this is asked."""

    told: list[list[PeerId]] = field(default_factory=list)

    async def set_authority(self, founder: PeerId, coordinators: list[PeerId]) -> None:
        self.told.append(list(coordinators))


def served(folder: SwarmFolder) -> tuple[Service, AmendmentWatch, Authorities]:
    log = MemoryLog()
    log.append(SmallSwarm().history)
    service = founded_service(
        folder, read_founding(folder), Journal(log), load_settings(folder.home)
    )
    network = Authorities()
    watch = AmendmentWatch(service=service, folder=folder, network=network)  # type: ignore[arg-type]
    return service, watch, network


def test_a_running_coordinator_follows_an_amendment_and_logs_it(folder: SwarmFolder) -> None:
    service, watch, network = served(folder)
    asyncio.run(watch.look())
    signed = amend_swarm(
        folder.root, Changes(notice="hello", policy=("segment_s=33", "max_staleness=7")), NOW_MS
    )
    assert signed.number == 1
    assert service.rules.charter.policy.segment_s != 33.0
    asyncio.run(watch.look())
    assert service.rules.charter.policy.segment_s == 33.0
    assert service.rules.charter.policy.max_staleness == 7
    assert network.told == [[COORDINATOR.peer_id]]
    asyncio.run(watch.look())
    (told,) = [a for a in actions(service.journal.state) if a.action == "amendment"]
    assert told.signer == FOUNDER.peer_id
    assert told.sentence == "the founder signed amendment 1 changes the policy; says: hello"


async def _welcome(service: Service) -> Welcome:
    hello = Hello(
        pseudonym="v",
        program_version="0.1.0",
        machine=Machine(device="cpu", memory_gib=1.0, seconds_per_step=0.1),
        addresses=[],
    )
    raw = seal(NODE, REQUEST, service.swarm, Request(request_id="1" * 32, body=hello))
    body = open_envelope(await service.answer(raw), REPLY, service.swarm).body.body
    assert isinstance(body, Welcome)
    return body


def test_nodes_are_told_every_amendment_and_can_fetch_it(folder: SwarmFolder) -> None:
    amend_swarm(folder.root, Changes(notice="one"), NOW_MS)
    service, watch, _ = served(folder)
    amend_swarm(folder.root, Changes(notice="two"), NOW_MS + 1)
    asyncio.run(watch.look())
    welcome = asyncio.run(_welcome(service))
    assert list(welcome.amendments) == list(service.in_force.amendment_blobs)
    assert len(welcome.amendments) == 2


def test_the_founders_record_leads_the_dht_to_the_whole_chain(folder: SwarmFolder) -> None:
    amend_swarm(folder.root, Changes(notice="one"), NOW_MS)
    service, _, _ = served(folder)
    (record,) = service.book.under(CHARTER_KEY, service.journal.state, NOW_MS)
    authority = Authority(service.swarm, FOUNDER.peer_id, frozenset())
    body = open_record(record.value, authority).body
    assert isinstance(body, CharterRecord)
    assert body.number == 1
    path = BlobStore(folder.store).path_of(body.blob)
    assert path is not None
    assert open_chain(path.read_bytes(), service.swarm) == service.in_force.chain


def test_a_new_key_ends_the_old_one_and_is_taken_at_the_next_start(folder: SwarmFolder) -> None:
    _, watch, _ = served(folder)
    amend_swarm(folder.root, Changes(rotate_key=True), NOW_MS)
    with pytest.raises(LocalError, match="ended this coordinator's key"):
        asyncio.run(watch.look())
    amended = chain_in(folder).charter
    assert COORDINATOR.peer_id not in amended.coordinators
    fresh, _, _ = served(folder)
    assert fresh.key.peer_id == amended.coordinators[0] != COORDINATOR.peer_id
    assert load_key(folder.key).peer_id == fresh.key.peer_id
    assert not folder.next_key.exists()
    assert all(COORDINATOR.peer_id not in address for address in fresh.book.addresses)
    told = read_invite(folder.invite.read_text()).body
    assert told.coordinators == amended.coordinators
    assert told.addresses == amended.addresses


def test_a_start_with_an_ended_key_and_no_new_one_is_refused(folder: SwarmFolder) -> None:
    amend_swarm(folder.root, Changes(coordinators=(NODE.peer_id,)), NOW_MS)
    with pytest.raises(LocalError, match="an amendment may have ended it"):
        adopt_next_key(folder, chain_in(folder).charter)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (Changes(), "something to change or to say"),
        (Changes(policy=("nothing=1",)), "has no 'nothing'"),
        (Changes(policy=("segment_s=-4",)), "segment_s can't be '-4'"),
        (Changes(policy=("segment_s=many",)), "segment_s can't be 'many'"),
        (Changes(coordinators=("somebody",)), "somebody"),
        (Changes(notice="x" * 5_000), "4000"),
    ],
)
def test_what_can_not_be_signed_is_explained_and_changes_nothing(
    folder: SwarmFolder, changes: Changes, words: str
) -> None:
    before = folder.amended.read_bytes()
    with pytest.raises(KinoswarmError, match=words):
        amend_swarm(folder.root, changes, NOW_MS)
    assert folder.amended.read_bytes() == before


def test_only_the_founders_key_signs(folder: SwarmFolder) -> None:
    with pytest.raises(LocalError, match="signed by the founder"):
        amend_swarm(folder.root, Changes(notice="hi"), NOW_MS, founder_key=folder.key)


def test_a_damaged_charter_file_leaves_the_running_coordinator_as_it_was(
    folder: SwarmFolder,
) -> None:
    service, watch, network = served(folder)
    raw = bytearray(folder.amended.read_bytes())
    raw[len(raw) // 2] ^= 1
    folder.amended.write_bytes(bytes(raw))
    asyncio.run(watch.look())
    assert service.in_force.chain.number == 0
    assert network.told == []


def test_clusters_are_not_added_to_a_running_swarm(folder: SwarmFolder) -> None:
    before = chain_in(folder)
    more = Amendment(
        number=1,
        previous_sha256="0" * 64,
        created_at_ms=1,
        added_clusters=[before.charter.clusters[0]],
    )
    write_charter_file(folder, FOUNDER, lengthen(FOUNDER, before, more), NOW_MS)
    with pytest.raises(MalformedBytes, match="adds clusters"):
        chain_in(folder)


def test_the_command_signs_and_says_what_it_signed(folder: SwarmFolder) -> None:
    done = CliRunner().invoke(
        app,
        ["amend", str(folder.root), "--new-version", "0.9.0", "--version-notes", "less heat"],
    )
    assert done.exit_code == 0, done.output
    assert "recommends version 0.9.0: less heat" in done.output
    (opened,) = chain_in(folder).amendments
    assert open_envelope(opened.raw, AMENDMENT, chain_in(folder).swarm).signer == FOUNDER.peer_id


def test_a_program_that_became_too_old_gets_no_work_and_is_told_which_version_would() -> None:
    swarm = SmallSwarm()
    swarm.hello(NODE)
    newer = structs.replace(swarm.rules.charter, min_version="0.1.1")
    swarm.rules = replace(swarm.rules, charter=newer)
    body = PullLease(modes=[ModeSpec(name="full")], clusters_on_disk=[], seconds_per_step=0.5)
    for said in (swarm.ask(NODE, body).say, swarm.hello(NODE).say):
        assert isinstance(said, Refusal)
        assert said.code == Code.VERSION_MISMATCH
        assert "needs version 0.1.1 or newer, this is 0.1.0" in said.sentence
