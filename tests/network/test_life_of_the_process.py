"""The network process starts, fails and ends cleanly: nothing outlives its service, and errors say what to do."""

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from network.peers import (
    COORDINATOR,
    LOOPBACK,
    NOBODY,
    OTHER_SWARM,
    SWARM,
    Nodes,
    config,
    echo,
    is_listening,
    now_ms,
    provider,
    wait_until_gone,
)

from kinoswarm_network.client import NetworkClient
from kinoswarm_network.directory import clock_ahead
from kinoswarm_network.home_folder import HomeFolder
from kinoswarm_network.identity import CorruptKeyFile
from kinoswarm_protocol.errors import LocalError, Unreachable
from kinoswarm_protocol.records import COORDINATOR_KEY, CoordinatorRecord, seal_record

SERVICE = """
import asyncio, sys
from pathlib import Path
from network.peers import config, echo
from kinoswarm_network.client import NetworkClient

async def main():
    client = await NetworkClient.start(config(Path(sys.argv[1])), echo)
    print(client.pid, client.addresses[0], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

LATE_CLOCK = """
import sys, time
real, shift = time.time, float(sys.argv.pop(1))
time.time = lambda: real() + shift
from kinoswarm_network.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def python(program: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def daemon_pid(home: Path) -> int:
    return int((home / "p2pd.pid").read_text())


def test_a_service_loads_neither_hivemind_nor_torch() -> None:
    program = (
        "import sys; import kinoswarm_network.client, kinoswarm_network.transport, "
        "kinoswarm_network.http_client; print(*sys.modules)"
    )
    with python(program) as process:
        loaded = set(process.communicate()[0].split())
    assert "kinoswarm_network.client" in loaded
    assert not {name for name in loaded if name.split(".")[0] in ("hivemind", "torch", "google")}


def test_the_network_process_loads_hivemind_without_torch() -> None:
    program = (
        "import sys; from kinoswarm_network.hivemind_parts import load_hivemind; "
        "load_hivemind(); print(*sys.modules)"
    )
    with python(program) as process:
        loaded = set(process.communicate()[0].split())
    assert "hivemind.dht.node" in loaded
    assert "torch" not in loaded


def test_killing_the_service_leaves_no_process_and_no_port_and_a_new_start_works(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    with python(SERVICE, str(tmp_path)) as service:
        assert service.stdout is not None
        pid, address = service.stdout.readline().split()
        pids = [int(pid), daemon_pid(tmp_path)]
        assert is_listening(address)
        service.send_signal(signal.SIGKILL)
    assert wait_until_gone(pids, 5.0)
    assert not is_listening(address)
    again = runner.run(NetworkClient.start(config(tmp_path), echo))
    assert address.endswith(again.peer_id)
    runner.run(again.stop())


def test_killing_the_network_process_alone_ends_its_daemon_too(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    async def kill() -> int:
        client = await NetworkClient.start(config(tmp_path), echo)
        assert client.pid is not None
        daemon = daemon_pid(tmp_path)
        os.kill(client.pid, signal.SIGKILL)
        await client.wait_ended()
        with pytest.raises(LocalError, match="the network process has ended"):
            await client.traffic()
        await client.stop()
        return daemon

    assert wait_until_gone([runner.run(kill())], 5.0)


def test_when_the_daemon_dies_the_network_process_ends_and_the_service_learns_of_it(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    async def kill() -> None:
        client = await NetworkClient.start(config(tmp_path), echo)
        os.kill(daemon_pid(tmp_path), signal.SIGKILL)
        await asyncio.wait_for(client.wait_ended(), 10.0)
        await client.stop()

    runner.run(kill())


def test_stopping_twice_is_harmless(runner: asyncio.Runner, tmp_path: Path) -> None:
    async def stop() -> None:
        client = await NetworkClient.start(config(tmp_path), echo)
        await client.stop()
        await client.stop()
        with pytest.raises(LocalError, match="has ended"):
            await client.traffic()

    runner.run(stop())


def test_a_taken_port_is_named_with_what_to_do(runner: asyncio.Runner, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        with pytest.raises(LocalError, match=rf"{address}: the port is taken .* choose another"):
            runner.run(NetworkClient.start(config(tmp_path, listen=[address]), echo))


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("/ip4/192.0.2.1/tcp/0", "does not have that address"),
        ("nonsense", "not a multiaddress"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_explained(
    runner: asyncio.Runner, tmp_path: Path, listen: str, words: str
) -> None:
    with pytest.raises(LocalError, match=words):
        runner.run(NetworkClient.start(config(tmp_path, listen=[listen]), echo))


def test_a_home_folder_in_use_is_refused_with_the_process_that_uses_it(
    runner: asyncio.Runner, nodes: Nodes
) -> None:
    with pytest.raises(LocalError, match=f"process {nodes.first.pid} already uses"):
        runner.run(NetworkClient.start(config(nodes.folder / "first"), echo))


def test_a_damaged_key_stops_the_start(runner: asyncio.Runner, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"rubbish")
    with pytest.raises(LocalError, match="key is damaged"):
        runner.run(NetworkClient.start(config(tmp_path), echo))
    assert issubclass(CorruptKeyFile, LocalError)


def test_a_program_that_ends_at_once_is_reported_and_not_waited_for(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    with pytest.raises(LocalError, match="the network process has ended; see its log"):
        runner.run(NetworkClient.start(config(tmp_path), echo, program=["/bin/false"]))


def test_a_first_node_starts_although_no_bootstrap_peer_answers(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    client = runner.run(NetworkClient.start(config(tmp_path, bootstrap=[NOBODY]), echo))
    assert not client.bootstrap_report.ok
    assert "connection refused" in client.bootstrap_report.in_words()
    runner.run(client.stop())


def test_a_very_long_home_path_is_no_obstacle(runner: asyncio.Runner, tmp_path: Path) -> None:
    def socket_folders() -> set[Path]:
        return set(Path(tempfile.gettempdir()).glob(f"kinoswarm-{os.getuid()}-*"))

    home = tmp_path / ("x" * 120)
    before = socket_folders()
    client = runner.run(NetworkClient.start(config(home), echo))
    assert client.addresses
    name = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]
    made = Path(tempfile.gettempdir()) / f"kinoswarm-{os.getuid()}-{name}"
    assert made in socket_folders() - before
    runner.run(client.stop())
    assert made not in socket_folders()


def test_two_swarms_on_one_machine_do_not_mix(
    runner: asyncio.Runner, nodes: Nodes, tmp_path: Path
) -> None:
    async def meet() -> None:
        settings = config(tmp_path, swarm=OTHER_SWARM, bootstrap=nodes.first.addresses)
        other = await NetworkClient.start(settings, echo)
        try:
            assert "takes no part in this swarm" in other.bootstrap_report.in_words()
            for asking, asked in ((other, nodes.first), (nodes.first, other)):
                with pytest.raises(Unreachable, match="takes no part in this swarm"):
                    await asking.control(asked.peer_id, asked.addresses, b"hello")
            assert await other.look_up("charter") == []
        finally:
            await other.stop()

    runner.run(meet())


@pytest.mark.parametrize(("shift", "words"), [("10", "behind"), ("-10", "ahead of")])
def test_a_clock_that_is_off_is_reported_in_plain_words(
    runner: asyncio.Runner, nodes: Nodes, tmp_path: Path, shift: str, words: str
) -> None:
    program = [sys.executable, "-c", LATE_CLOCK, shift]

    async def meet() -> str:
        other = await NetworkClient.start(config(tmp_path), echo, program=program)
        try:
            report = await nodes.third.connect(other.addresses)
        finally:
            await other.stop()
        assert abs(abs(report.reports[0].clock_ahead_ms or 0) - 10_000) < 2_000
        return report.in_words()

    said = runner.run(meet())
    assert words in said
    assert "automatic time (NTP)" in said


def test_a_clock_is_only_called_off_by_what_a_reply_can_prove() -> None:
    assert clock_ahead(sent_ms=1_000, received_ms=3_000, theirs_ms=2_999) == 0
    assert clock_ahead(sent_ms=1_000, received_ms=3_000, theirs_ms=900) == -100
    assert clock_ahead(sent_ms=1_000, received_ms=3_000, theirs_ms=3_500) == 500


def test_a_machine_that_nobody_can_dial_takes_part_in_client_mode(
    runner: asyncio.Runner, nodes: Nodes, tmp_path: Path, source: Path
) -> None:
    source.write_bytes(b"latents")

    async def take_part() -> None:
        settings = config(tmp_path, client_mode=True, listen=[], bootstrap=nodes.first.addresses)
        hidden = await NetworkClient.start(settings, echo)
        try:
            assert hidden.bootstrap_report.ok, hidden.bootstrap_report.in_words()
            assert hidden.addresses == []
            assert (await hidden.control(nodes.first.peer_id, [], b"hi")).endswith(b"hi")
            blob = await nodes.first.add_blob(source)
            path = await hidden.fetch_blob(blob, [provider(nodes.first)])
            assert path.read_bytes() == b"latents"
            own = await hidden.add_blob(source)
            assert own == blob
            answer = await nodes.first.control(hidden.peer_id, [], b"still connected?")
            assert answer.endswith(b"still connected?")
        finally:
            await hidden.stop()

    runner.run(take_part())


def test_a_node_that_lost_its_only_peer_joins_again_when_that_is_back(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    record = seal_record(
        COORDINATOR, SWARM, CoordinatorRecord(addresses=[LOOPBACK], epoch=1), now_ms()
    )

    async def lose_and_find() -> None:
        first = await NetworkClient.start(config(tmp_path / "first"), echo)
        address = first.addresses[0].partition("/p2p/")[0]
        settings = config(tmp_path / "node", bootstrap=first.addresses, rejoin_every_s=0.2)
        node = await NetworkClient.start(settings, echo)
        try:
            await first.stop()
            assert await node.announce(record)  # nobody else is left to keep it
            first = await NetworkClient.start(config(tmp_path / "first", listen=[address]), echo)
            async with asyncio.timeout(20.0):
                while not await first.look_up(COORDINATOR_KEY):
                    assert first.config.listen == [address]
        finally:
            await asyncio.gather(first.stop(), node.stop())

    runner.run(lose_and_find())


# --- the home folder ----------------------------------------------------------------------------


def test_a_daemon_that_outlived_its_process_is_ended(tmp_path: Path) -> None:
    identity = tmp_path / "key.libp2p"
    stale = python("import signal; signal.pause()", str(identity))
    other = python("import signal; signal.pause()", "something else")
    home = HomeFolder(tmp_path / "home")
    home.remember_daemon(other.pid)
    home.end_stale_daemon(identity)
    assert other.poll() is None
    home.remember_daemon(stale.pid)
    home.end_stale_daemon(identity)
    with stale, other:
        assert stale.wait(5) == -signal.SIGKILL
        other.kill()
    home.end_stale_daemon(identity)
    home.close()


def test_left_sockets_are_removed_and_the_folder_is_private(tmp_path: Path) -> None:
    home = HomeFolder(tmp_path)
    (home.sockets() / "p2pd.sock").touch()
    folder = home.sockets()
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(LocalError, match="open to others"):
        home.sockets()
    home.close()
    assert not folder.exists()


def test_started_by_hand_it_says_so_and_ends() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "kinoswarm_network", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ran.returncode == 2
    assert "not by hand" in ran.stderr
