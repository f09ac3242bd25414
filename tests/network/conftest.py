"""Real peers for the network tests: one event loop and one swarm of three processes for the whole session."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from network.peers import Nodes, Stranger, start_nodes


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@pytest.fixture(scope="session")
def nodes(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    started = runner.run(start_nodes(tmp_path_factory.mktemp("swarm")))
    yield started
    runner.run(started.stop())


@pytest.fixture(scope="session")
def stranger(
    runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory, nodes: Nodes
) -> Iterator[Stranger]:
    started = runner.run(Stranger.start(tmp_path_factory.mktemp("stranger")))
    yield started
    runner.run(started.host.stop())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"
