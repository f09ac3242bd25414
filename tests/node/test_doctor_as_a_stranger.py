"""`kinoswarm doctor` as somebody new runs it, before real sockets that are wrong: its text alone says what to do."""

import asyncio
import json
import socket
from pathlib import Path

from msgspec import structs
from node.clock_coordinator import clock_coordinator
from protocol.samples import COORDINATOR, FOUNDER, NODE, SWARM, invite
from typer.testing import CliRunner

from kinoswarm_cli.errors_and_exits import ExitCode
from kinoswarm_cli.main import app
from kinoswarm_protocol.invite import write_invite

DEAD_PEER = f"/ip4/127.0.0.1/tcp/1/p2p/{COORDINATOR.peer_id}"


async def examined(home: Path, addresses: list[str], **environment: str) -> tuple[int, str]:
    """Exit code and what stands on the screen."""
    text = write_invite(FOUNDER, structs.replace(invite(), swarm=SWARM, addresses=addresses))

    def invoke() -> tuple[int, str]:
        result = CliRunner().invoke(app, ["doctor", text, "--home", str(home)], env=environment)
        return result.exit_code, result.stdout

    return await asyncio.to_thread(invoke)


def lines_after(said: str, start: str) -> str:
    """The line that starts so, and what to do about it."""
    lines = said.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(start))
    advice = lines[at + 1] if lines[at + 1].startswith("      →") else ""
    return lines[at] + advice


def test_a_clock_that_is_ten_minutes_late_is_the_one_thing_to_mend(tmp_path: Path) -> None:
    async def scenario() -> tuple[int, str]:
        async with clock_coordinator(ahead_ms=600_000) as url:
            return await examined(tmp_path, [url])

    code, said = asyncio.run(scenario())
    assert code == ExitCode.LOCAL
    clock = lines_after(said, "WRONG clock")
    assert "10 minutes behind" in clock
    assert "NTP" in clock
    assert said.rstrip().endswith(
        "In the way of taking part: clock. What to do stands under each (→)."
    )


def test_a_dead_bootstrap_peer_beside_a_living_coordinator_is_no_obstacle(tmp_path: Path) -> None:
    async def scenario() -> tuple[int, str]:
        async with clock_coordinator(ahead_ms=0) as url:
            return await examined(tmp_path, [DEAD_PEER, url])

    code, said = asyncio.run(scenario())
    assert code == ExitCode.OK
    dead = lines_after(said, f"note  {DEAD_PEER}")
    assert "nobody listens there (connection refused)" in dead
    assert "one is enough" in dead
    assert said.rstrip().endswith("Nothing is in the way of taking part: kinoswarm join INVITE")


def test_when_every_address_is_dead_the_problem_is_theirs(tmp_path: Path) -> None:
    code, said = asyncio.run(
        examined(tmp_path, [DEAD_PEER, "http://127.0.0.1:1", "https://no-such-name.invalid:8700"])
    )
    assert code == ExitCode.UNREACHABLE
    assert "DNS does not know it" in lines_after(said, "note  name no-such-name.invalid")
    assert "its name is not known (DNS)" in lines_after(said, "note  https://no-such-name.invalid")
    assert "one is enough" not in said
    assert "ask whoever invited you" in lines_after(said, "WRONG way to the swarm")


def test_an_https_only_node_is_told_of_web_addresses_alone(tmp_path: Path) -> None:
    async def scenario(*addresses: str) -> tuple[int, str]:
        return await examined(tmp_path, list(addresses), KINOSWARM_NODE_HTTPS_ONLY="true")

    async def beside_a_dead_peer() -> tuple[int, str]:
        async with clock_coordinator(ahead_ms=0) as url:
            return await scenario(DEAD_PEER, url)

    code, said = asyncio.run(beside_a_dead_peer())
    assert code == ExitCode.OK
    assert DEAD_PEER not in said
    code, said = asyncio.run(scenario(DEAD_PEER))
    assert code == ExitCode.LOCAL
    assert "set https_only to false" in lines_after(said, "WRONG way to the swarm")


def test_another_swarms_coordinator_at_the_address_is_told_apart(tmp_path: Path) -> None:
    async def scenario() -> tuple[str, str]:
        async with clock_coordinator(ahead_ms=0, signer=NODE) as url:
            return url, (await examined(tmp_path, [url]))[1]

    url, said = asyncio.run(scenario())
    assert lines_after(said, f"note  {url}").startswith(f"note  {url}: the reply is signed by")
    assert "ask for a fresh invite" in said


def test_a_port_that_another_program_has_is_named_with_that_program(tmp_path: Path) -> None:
    async def scenario() -> tuple[int, int, str]:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            listen = json.dumps([f"/ip4/127.0.0.1/tcp/{port}"])
            async with clock_coordinator(ahead_ms=0) as url:
                code, said = await examined(tmp_path, [url], KINOSWARM_NODE_LISTEN=listen)
            return port, code, said

    port, code, said = asyncio.run(scenario())
    assert code == ExitCode.LOCAL
    blocked = lines_after(said, "WRONG listening on")
    assert f"port {port} is taken by" in blocked
    assert "--listen /ip4/0.0.0.0/tcp/0" in blocked
