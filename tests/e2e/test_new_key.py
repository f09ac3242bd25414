"""The founder ends a coordinator's key while a node takes part: real processes, real HTTP, nobody helps by hand."""

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinator.test_starting import prepared_data
from e2e.processes import PATIENCE_S, Swarm, kinoswarm

from kinoswarm_coordinator.founding import FoundingConfig, create_swarm
from kinoswarm_network.identity import load_key

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
"""The parts have short tests: tests/coordinator/test_amending.py, tests/node/test_following.py and test_account.py."""


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    config = FoundingConfig(
        name="Walls", preset="tiny", seed_steps=4, segment_steps=50, target_version=500, threads=1
    )
    create_swarm(prepared_data(tmp_path / "data"), tmp_path / "founded", config)
    founded = Swarm(tmp_path / "founded")
    yield founded
    founded.end()


def account_on_page(swarm: Swarm, peer: str) -> str:
    with urllib.request.urlopen(f"{swarm.page}api/v1/nodes/{peer}", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return str(found["account_name"])


def wait_for_words(home: Path, words: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while words not in (told := kinoswarm("why", "--home", home, "--json").stdout):
        assert time.monotonic() < deadline, told
        time.sleep(1.0)


def test_a_node_and_a_visitor_follow_to_the_new_key_and_refuse_the_old(swarm: Swarm) -> None:
    home = swarm.folder.parent / "first"
    coordinator = swarm.serve()
    kinoswarm("account", "create", "--name", "otters", "--home", home)
    swarm.join("first")
    swarm.wait_for(lambda status: bool(status["nodes"]))
    peer = load_key(home / "identity.key").peer_id
    assert account_on_page(swarm, peer) == "otters"

    kinoswarm("swarm", "amend", swarm.folder, "--rotate-key", "--notice", "we have a new key")
    coordinator.process.wait(timeout=60.0)
    assert "ended this coordinator's key" in coordinator.log.read_text()

    swarm.serve()
    restarted_ms = swarm.status()["now_ms"]
    wait_for_words(home, "says: we have a new key")
    swarm.wait_for(lambda status: status["nodes"][0]["last_seen_ms"] > restarted_ms)

    said = kinoswarm("account", "leave", "--home", home).stdout
    assert "no longer counts" in said, "a command with the old invite found the new key too"
    assert account_on_page(swarm, peer) == ""
