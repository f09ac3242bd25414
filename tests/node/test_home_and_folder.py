"""The node's folder: the lock, the stages of a segment, and what a kill at any moment leaves."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from node.scripted import World
from protocol.samples import NODE, SWARM

from kinoswarm_node.home import (
    FORMAT,
    Home,
    HomeFormat,
    check_format,
    locked,
    running_pid,
)
from kinoswarm_node.node_status import read_status
from kinoswarm_node.swarm_folder import HistoryLine, SelfTest, SwarmFolder, open_swarm_folder
from kinoswarm_protocol.envelope import seal
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.messages import CONTRIBUTION, LEASE, Contribution, FailedOutcome

ID = LeaseId("0" * 32)
HOLDER = """
import sys
from pathlib import Path
from kinoswarm_node.home import (
    FORMAT,
    Home,
    HomeFormat,
    check_format,
    locked,
    running_pid,
)
with locked(Home(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def line(lease_id: str, state: str = "accepted") -> HistoryLine:
    return HistoryLine(at_ms=1, lease_id=lease_id, state=state, code="accepted", sentence="good")


def contribution(folder: SwarmFolder) -> bytes:
    outcome = FailedOutcome(code="work_failed", sentence="no")
    body = Contribution(lease_id=ID, node=NODE.peer_id, finished_at_ms=1, outcome=outcome)
    return seal(NODE, CONTRIBUTION, folder.swarm, body)


def test_a_second_daemon_in_the_same_home_is_told_the_process_of_the_first(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as first:
        assert first.stdout
        assert first.stdin
        assert first.stdout.readline() == b"held\n"
        with (
            pytest.raises(LocalError, match=rf"another node runs in .* \(process {first.pid}\)"),
            locked(Home(tmp_path)),
        ):
            pass
        first.kill()
        first.wait()
        with locked(Home(tmp_path)):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_home_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(LocalError, match="choose another with --home"),
        locked(Home(tmp_path / "file" / "home")),
    ):
        pass


def test_a_segment_passes_through_its_stages(tmp_path: Path) -> None:
    world = World(tmp_path)
    folder = SwarmFolder(tmp_path / "swarm", world.swarm)
    folder.keep_lease(ID, world.lease(0))
    (folder.work_dir(ID) / "resume").write_text("7")
    assert [opened.body.lease_id for opened in folder.open_leases()] == [ID]
    folder.keep_contribution(ID, contribution(folder))
    assert (folder.open_leases(), folder.unsent_ids()) == ([], [ID])
    assert not (folder.root / "work" / ID).exists()
    folder.mark_sent(ID)
    assert (folder.unsent_ids(), folder.pending_ids()) == ([], [ID])
    assert folder.contribution(ID) is not None
    folder.close(ID, line(ID))
    assert folder.pending_ids() == folder.unsent_ids() == folder.open_leases() == []
    assert [found.lease_id for found in folder.history()] == [ID]


def test_a_damaged_lease_is_no_work_order(tmp_path: Path) -> None:
    world = World(tmp_path)
    folder = SwarmFolder(tmp_path / "swarm", world.swarm)
    raw = bytearray(world.lease(0))
    raw[-1] ^= 1
    folder.keep_lease(ID, bytes(raw))
    assert folder.open_leases() == []
    assert not list((folder.root / "leases").iterdir())


def test_a_history_that_a_power_cut_tore_is_still_read(tmp_path: Path) -> None:
    folder = SwarmFolder(tmp_path, SWARM)
    folder.close(LeaseId("a" * 32), line("a" * 32))
    with (tmp_path / "history.jsonl").open("ab") as file:
        file.write(b'{"at_ms": 12, "lea\n')
    folder.close(LeaseId("b" * 32), line("b" * 32))
    folder.close(LeaseId("b" * 32), line("b" * 32))
    assert [found.lease_id[0] for found in folder.history()] == ["a", "b"]


@given(st.binary(max_size=200))
def test_any_history_can_be_read(raw: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        folder = SwarmFolder(Path(root), SWARM)
        (Path(root) / "history.jsonl").write_bytes(raw)
        assert list(folder.history()) == []


def test_a_self_test_counts_only_for_the_device_and_threads_it_was_made_with(
    tmp_path: Path,
) -> None:
    folder = SwarmFolder(tmp_path, SWARM)
    assert folder.self_test("cpu", 2) is None
    made = SelfTest(
        device="cpu", threads=2, device_name="CPU", memory_bytes=1, seconds_per_step=0.5
    )
    folder.keep_self_test(made)
    assert folder.self_test("cpu", 2) == made
    assert folder.self_test("cuda", 2) is None
    assert folder.self_test("cpu", 1) is None


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="choose another --home"):
        open_swarm_folder(tmp_path / "file" / "swarm", SWARM)


def test_no_status_says_how_to_start_a_node(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"no node has run in .*kinoswarm join INVITE --home"):
        read_status(tmp_path / "status.json")


def test_a_damaged_status_is_said(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(LocalError, match="is damaged"):
        read_status(tmp_path / "status.json")


def test_leases_of_another_swarm_are_not_believed(tmp_path: Path) -> None:
    folder = SwarmFolder(tmp_path / "swarm", SWARM)
    world = World(tmp_path)
    opened = LEASE.type
    assert opened is not None
    folder.keep_lease(ID, world.lease(0))
    assert folder.lease(ID) is None


# --- upgrades and downgrades --------------------------------------------------------------------


def test_an_upgrade_keeps_everything(tmp_path: Path) -> None:
    """A home from before there was a format note, with a segment and an unsent result in it."""
    home = Home(tmp_path)
    world = World(tmp_path)
    folder = SwarmFolder(home.swarm_root(world.swarm), world.swarm)
    folder.keep_lease(ID, world.lease(0))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    check_format(home, "0.1.0")
    check_format(home, "9.9.9")
    assert {path: path.read_bytes() for path in before} == before
    assert b"9.9.9" in home.format_path.read_bytes()


def test_a_downgrade_is_refused_with_a_reason_and_touches_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    newer = msgspec.json.encode(HomeFormat(format=FORMAT + 1, program="7.0"))
    home.format_path.write_bytes(newer)
    with pytest.raises(LocalError, match=r"written by kinoswarm 7.0.*without losing work; update"):
        check_format(home, "0.1.0")
    assert home.format_path.read_bytes() == newer


def test_a_damaged_format_note_is_written_anew(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.format_path.write_bytes(b"{")
    check_format(home, "0.1.0")
    assert b"0.1.0" in home.format_path.read_bytes()


def test_a_running_daemon_is_known_by_its_lock_and_not_by_a_number_in_a_file(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    assert running_pid(home) is None
    with locked(home):
        assert running_pid(home) == os.getpid()
    assert running_pid(home) is None
    assert home.lock_path.read_text(), "the number is still there, but nobody holds the lock"
