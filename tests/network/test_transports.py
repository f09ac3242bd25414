"""One suite for every way to a peer: libp2p by two implementations, and HTTP, must behave alike."""

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from coordinator.upload_site import upload_site
from network.peers import FOUNDER, NOBODY, Nodes, config
from network.web import serving

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.http_client import HttpSource
from kinoswarm_network.light_client import LightClient
from kinoswarm_network.transport import PeerTransport, Transport
from kinoswarm_protocol.errors import Refused, Unreachable
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.limits import MIB
from kinoswarm_protocol.messages import ProviderHint


@dataclass
class Way:
    """A transport to somebody who publishes what `publish` is given, and one to nobody."""

    transport: Transport
    publish: Callable[[Path], BlobId]
    to_nobody: Transport


@pytest.fixture(params=["libp2p", "py-libp2p", "http"])
def way(
    request: pytest.FixtureRequest, runner: asyncio.Runner, nodes: Nodes, tmp_path: Path
) -> Iterator[Way]:
    if request.param == "libp2p":
        yield Way(
            PeerTransport(nodes.third, nodes.first.peer_id, nodes.first.addresses),
            lambda path: runner.run(nodes.first.add_blob(path)),
            PeerTransport(nodes.third, FOUNDER.peer_id, [NOBODY]),
        )
        return
    if request.param == "py-libp2p":
        light = runner.run(LightClient.start(config(tmp_path / "light")))
        yield Way(
            PeerTransport(light, nodes.first.peer_id, nodes.first.addresses),
            lambda path: runner.run(nodes.first.add_blob(path)),
            PeerTransport(light, FOUNDER.peer_id, [NOBODY]),
        )
        runner.run(light.stop())
        return
    with serving(BlobStore(tmp_path / "theirs")) as server:
        ours = BlobStore(tmp_path / "ours")
        source = HttpSource(server.url, ours)
        nobody = HttpSource("http://127.0.0.1:1", ours)
        yield Way(source, server.store.add_file, nobody)
        runner.run(source.close())
        runner.run(nobody.close())


def test_a_request_is_answered(runner: asyncio.Runner, way: Way) -> None:
    assert runner.run(way.transport.ask(b"x")).endswith(b"asked x")


def test_a_refusal_is_typed(runner: asyncio.Runner, way: Way) -> None:
    with pytest.raises(Refused):
        runner.run(way.transport.ask(b"refuse"))


def test_a_blob_arrives_whole_and_again_at_no_cost(
    runner: asyncio.Runner, way: Way, source: Path
) -> None:
    data = os.urandom(2 * MIB + 1)
    source.write_bytes(data)
    blob = way.publish(source)
    told: list[tuple[int, int]] = []
    path = runner.run(way.transport.fetch_blob(blob, on_progress=lambda *sizes: told.append(sizes)))
    assert path.read_bytes() == data
    assert told[-1] == (len(data), len(data))
    told.clear()
    assert runner.run(way.transport.fetch_blob(blob)) == path
    assert told == []


def test_an_unknown_blob_is_refused(runner: asyncio.Runner, way: Way) -> None:
    with pytest.raises(Refused):
        runner.run(way.transport.fetch_blob(BlobId("77" * 32)))


def test_nobody_is_unreachable(runner: asyncio.Runner, way: Way) -> None:
    with pytest.raises(Unreachable):
        runner.run(way.to_nobody.ask(b"x"))
    with pytest.raises(Unreachable):
        runner.run(way.to_nobody.fetch_blob(BlobId("77" * 32)))


def test_a_way_names_itself_for_messages(way: Way) -> None:
    assert str(way.transport).startswith(("peer 12D3Koo", "http://127.0.0.1:"))


async def brought_by_libp2p(nodes: Nodes, source: Path) -> Path | None:
    """The peer fetches over the connection on which it was asked: it needs no address of ours."""
    transport = PeerTransport(nodes.third, nodes.first.peer_id, nodes.first.addresses)
    blob = await nodes.third.add_blob(source)
    assert await transport.ask(b"here is my result")
    await transport.deliver(LeaseId("1" * 32), blob)
    return await nodes.first.fetch_blob(
        blob, [ProviderHint(peer=nodes.third.peer_id, addresses=[])]
    )


async def brought_by_http(folder: Path, source: Path) -> Path | None:
    site = upload_site(folder)
    lease_id, blob = site.waiting(source.read_bytes())
    async with site.served() as transport:
        await transport.deliver(lease_id, blob)
    return site.theirs.path_of(blob)


@pytest.mark.parametrize("way_there", ["libp2p", "http"])
def test_a_result_that_nobody_else_has_reaches_the_peer(
    runner: asyncio.Runner, nodes: Nodes, source: Path, tmp_path: Path, way_there: str
) -> None:
    source.write_bytes(os.urandom(2 * MIB + 9))
    bringing = (
        brought_by_libp2p(nodes, source)
        if way_there == "libp2p"
        else brought_by_http(tmp_path, source)
    )
    path = runner.run(bringing)
    assert path is not None
    assert path.read_bytes() == source.read_bytes()
