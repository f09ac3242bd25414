"""The node's network before any process runs: which addresses are whose, and the cache of peers."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protocol.samples import BLOB, COORDINATOR, FOUNDER, NODE, SWARM, invite

from kinoswarm_network.client import NetworkClient, NetworkConfig, ReachReport
from kinoswarm_network.rate_caps import utc_now
from kinoswarm_node.lookup_desk import LookupDesk
from kinoswarm_node.peer_network import (
    MAX_CACHED_PEERS,
    PeerNetwork,
    PeerNetworkPlan,
    hints_of,
    peer_addresses,
    web_addresses,
)
from kinoswarm_protocol.envelope import Opened
from kinoswarm_protocol.errors import LocalError, Refused
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.messages import ProviderHint
from kinoswarm_protocol.records import (
    Authority,
    CharterRecord,
    ProviderRecord,
    open_record,
    seal_record,
)

PEER = f"/ip4/203.0.113.7/tcp/4001/p2p/{COORDINATOR.peer_id}"


def network(folder: Path, month_bytes: int = 0) -> PeerNetwork:
    config = NetworkConfig(
        home=str(folder / "network"),
        swarm=SWARM,
        key_file=str(folder / "key"),
        founder=FOUNDER.peer_id,
        coordinators=[COORDINATOR.peer_id],
        month_bytes=month_bytes,
    )
    plan = PeerNetworkPlan(
        key=NODE,
        invite=invite(),
        config=config,
        store=folder / "blobs",
        peers_file=folder / "peers.json",
        on_control=LookupDesk(NODE, SWARM, folder, now_ms).answer,
    )
    return PeerNetwork(plan)


def remember(folder: Path, *addresses: str) -> None:
    hint = ProviderHint(peer=COORDINATOR.peer_id, addresses=list(addresses))
    asyncio.run(network(folder).remember_peers([hint]))


def test_addresses_are_told_apart() -> None:
    mixed = [PEER, "http://a", "https://b:1", "/ip4/1.2.3.4/tcp/1", "ftp://c"]
    assert peer_addresses(mixed) == [PEER]
    assert web_addresses(mixed) == ["http://a", "https://b:1"]


def test_every_peer_gets_its_own_addresses() -> None:
    hints = hints_of([COORDINATOR.peer_id, NODE.peer_id], [PEER])
    assert [(h.peer, h.addresses) for h in hints] == [
        (COORDINATOR.peer_id, [PEER]),
        (NODE.peer_id, []),
    ]


def test_peers_are_remembered_newest_first_and_bounded(tmp_path: Path) -> None:
    def address(port: int) -> str:
        return f"/ip4/203.0.113.7/tcp/{port}/p2p/{COORDINATOR.peer_id}"

    for port in range(1, MAX_CACHED_PEERS + 10):
        remember(tmp_path, address(port))
    remember(tmp_path, address(1))
    known = network(tmp_path)._known_peers()
    assert known[0] == address(1)
    assert len(known) == MAX_CACHED_PEERS
    assert len(set(known)) == len(known)


@given(st.binary(max_size=300))
def test_a_damaged_cache_is_an_empty_one(raw: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "peers.json").write_bytes(raw)
        assert network(Path(root))._cached_peers() == []


def test_before_the_start_the_network_says_that_it_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="the network process is not running"):
        asyncio.run(network(tmp_path).fetch_blob(BLOB, [], lambda done, total: None))
    asyncio.run(network(tmp_path).stop())


class Dht:
    """A network process that knows one record of the charter, who serves it, and its bytes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "chain.bin"
        self.path.write_bytes(b"a chain")
        self.asked: list[ProviderHint] = []
        charter = seal_record(FOUNDER, SWARM, CharterRecord(number=2, blob=BLOB), now_ms())
        serving = ProviderRecord(blob=BLOB, addresses=[PEER])
        provider = seal_record(NODE, SWARM, serving, now_ms())
        authority = Authority(SWARM, FOUNDER.peer_id, frozenset())
        self.records = {
            record.key: [open_record(record.value, authority)] for record in (charter, provider)
        }

    async def look_up(self, key: str) -> list[Opened[Any]]:
        return self.records.get(key, [])

    async def fetch_blob(
        self, blob: BlobId, providers: list[ProviderHint], on_bytes: object
    ) -> Path:
        assert blob == BLOB
        self.asked = list(providers)
        return self.path


def now_ms() -> int:
    return int(time.time() * 1000)


def test_the_amended_charter_is_found_by_the_dht_alone(tmp_path: Path) -> None:
    found, dht = network(tmp_path), Dht(tmp_path)
    found._client = dht  # type: ignore[assignment]
    found._sources = []
    assert asyncio.run(found.charter_chains()) == [b"a chain"]
    assert ProviderHint(peer=NODE.peer_id, addresses=[PEER]) in dht.asked


def test_amended_addresses_are_tried_before_the_invites(tmp_path: Path) -> None:
    found = network(tmp_path)
    before = [str(source) for source in found._sources]
    found._know(["http://new.example:1", *before])
    assert [str(source) for source in found._sources] == ["http://new.example:1", *before]


class ProcessBehindNat:
    """A network process whose peers see it at a public address and never get through."""

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        self.addresses = [PEER]
        self.stopped = False

    async def connect(self, addresses: list[str]) -> None:
        """Everybody answers."""

    async def refresh_addresses(self) -> None:
        """They stay the same."""

    async def wait_ended(self) -> None:
        """It ends at once, for all that these tests care."""

    async def reach(self) -> ReachReport:
        return ReachReport(asked=2, reached=False, host="8.8.4.4", port=4001)

    async def stop(self) -> None:
        self.stopped = True


def test_a_node_that_nobody_can_dial_goes_on_in_client_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[ProcessBehindNat] = []

    async def start(config: NetworkConfig, on_control: object) -> ProcessBehindNat:
        started.append(ProcessBehindNat(config))
        return started[-1]

    monkeypatch.setattr(NetworkClient, "start", start)

    async def scenario() -> None:
        node = network(tmp_path)
        await node.start()
        assert [process.config.client_mode for process in started] == [False, True]
        assert [process.stopped for process in started] == [True, False]
        assert node.addresses() == []
        assert "forward TCP port 4001" in node.reach()
        await node.stop()

    asyncio.run(scenario())


def test_what_comes_over_https_is_capped_as_what_comes_from_peers(tmp_path: Path) -> None:
    """A node whose peers bring nothing must not fetch past its owner's month over the web."""
    folder = tmp_path / "network"
    folder.mkdir()
    used = {"month": utc_now().strftime("%Y-%m"), "bytes": 100}
    (folder / "month.json").write_text(json.dumps(used))
    (source,) = network(tmp_path, month_bytes=100)._sources
    with pytest.raises(Refused, match="this month's cap"):
        asyncio.run(source._sending(1))
