"""One suite for every way to a peer: libp2p and HTTP must behave alike."""

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from network.peers import FOUNDER, NOBODY, Nodes
from network.web import serving

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.http_client import HttpSource
from kinoswarm_network.transport import PeerTransport, Transport
from kinoswarm_protocol.errors import Refused, Unreachable
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MIB


@dataclass
class Way:
    """A transport to somebody who publishes what `publish` is given, and one to nobody."""

    transport: Transport
    publish: Callable[[Path], BlobId]
    to_nobody: Transport


@pytest.fixture(params=["libp2p", "http"])
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
