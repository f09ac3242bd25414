"""The doctor: what a reading means, and what a new user is told about a blocked port or a bad invite."""

import errno
import json
import os
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kinoswarm_cli.errors_and_exits import ExitCode
from kinoswarm_cli.main import app
from kinoswarm_node.checkup import (
    State,
    Way,
    judge_card,
    judge_clock,
    judge_disk,
    judge_port,
    judge_reach,
    judge_way,
    judge_ways,
    proven_ahead,
    tcp_port,
)

GIB = 1024**3
ANY_PORT = ["/ip4/0.0.0.0/tcp/0"]
PORT_4001 = ["/ip4/0.0.0.0/tcp/4001"]


def way(problem: str = "", ahead_ms: int | None = None) -> Way:
    return Way(address="https://swarm.example", problem=problem, clock_ahead_ms=ahead_ms)


@pytest.mark.parametrize(
    ("free_gib", "state"), [(0.5, State.WRONG), (1.5, State.ADVICE), (9, State.FINE)]
)
def test_a_disk_is_judged_by_what_is_kept_free(free_gib: float, state: State) -> None:
    assert judge_disk(int(free_gib * GIB), GIB, "/home/heron").state is state


@pytest.mark.parametrize(
    ("device", "has_card", "state"),
    [
        ("auto", True, State.FINE),
        ("auto", False, State.ADVICE),
        ("cuda:1", False, State.WRONG),
        ("cpu", False, State.FINE),
    ],
)
def test_a_missing_card_is_wrong_only_when_it_was_asked_for(
    device: str, has_card: bool, state: State
) -> None:
    assert judge_card(device, has_card).state is state


@pytest.mark.parametrize(
    ("fault", "sentence", "to_do"),
    [
        (errno.EADDRINUSE, "taken by nginx (process 7)", "stop that program"),
        (errno.EADDRNOTAVAIL, "does not have that address", "listen on all of its own"),
        (errno.EACCES, "this user may not open port 80", "above 1023"),
        (errno.EAFNOSUPPORT, "cannot be used", "choose another"),
    ],
)
def test_each_fault_of_a_port_has_its_own_advice(fault: int, sentence: str, to_do: str) -> None:
    found = judge_port("/ip4/0.0.0.0/tcp/80", fault, "nginx (process 7)", is_running=False)
    assert found.state is State.WRONG
    assert sentence in found.sentence
    assert to_do in found.to_do


def test_a_port_that_the_own_node_has_is_fine() -> None:
    found = judge_port("/ip4/0.0.0.0/tcp/4001", errno.EADDRINUSE, "python", is_running=True)
    assert found.state is State.FINE


@pytest.mark.parametrize("fault", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_machine_without_ipv6_is_not_called_wrong(fault: int) -> None:
    found = judge_port("/ip6/::/tcp/0", fault, "", is_running=False)
    assert (found.state, found.to_do) == (State.FINE, "")


def test_behind_a_router_the_port_to_forward_is_named() -> None:
    assert "port 4001 of your router to 192.168.1.7" in judge_reach("192.168.1.7", PORT_4001).to_do
    assert "listen on a fixed port" in judge_reach("192.168.1.7", ANY_PORT).to_do


def test_a_node_that_only_dials_out_has_nothing_to_open() -> None:
    assert judge_reach("192.168.1.7", []).to_do == ""


def test_a_machine_without_a_network_is_told_so() -> None:
    assert judge_reach("", ANY_PORT).state is State.WRONG


def test_the_relay_is_told_as_it_is_set(tmp_path: Path) -> None:
    def relay(**environment: str) -> str:
        _, findings = run(tmp_path, **environment)
        return next(f["sentence"] for f in findings if f["name"] == "relay")

    assert "nobody else's traffic" in relay()
    assert "as you set it" in relay(KINOSWARM_NODE_RELAY_FOR_OTHERS="true")


def test_a_public_address_needs_no_router() -> None:
    assert judge_reach("8.8.4.4", ANY_PORT).state is State.FINE


def test_a_dead_address_is_only_wrong_when_all_are_dead() -> None:
    dead = judge_way(way("nobody listens there"), others_answer=True)
    assert (dead.state, dead.to_do) == (
        State.ADVICE,
        "nothing: another address answers, and one is enough",
    )
    assert judge_way(way("nobody listens there"), others_answer=False).to_do == ""
    assert judge_ways([way("nobody listens there"), way()]).state is State.FINE
    assert judge_ways([way("nobody listens there")]).state is State.WRONG


@pytest.mark.parametrize(
    ("ahead_ms", "words"),
    [
        (90_000, "90.0 s behind"),
        (-600_000, "10 minutes ahead of"),
        (7_200_000, "2 hours behind"),
        (-(10**9), "12 days ahead of"),
    ],
)
def test_a_clock_that_is_off_is_told_with_its_direction(ahead_ms: int, words: str) -> None:
    found = judge_clock([way(ahead_ms=ahead_ms)])
    assert found is not None
    assert found.state is State.WRONG
    assert words in found.sentence
    assert "NTP" in found.to_do


def test_one_peer_that_lies_about_the_time_changes_nothing() -> None:
    found = judge_clock([way(ahead_ms=10**12), way(ahead_ms=5), way(ahead_ms=-40)])
    assert found is not None
    assert found.state is State.FINE


def test_without_anybody_who_told_the_time_nothing_is_said_of_the_clock() -> None:
    assert judge_clock([way("no answer in time")]) is None


def test_a_slow_reply_is_not_taken_for_a_wrong_clock() -> None:
    assert proven_ahead(-8_000, took_ms=9_000) == 0
    assert proven_ahead(-8_000, took_ms=1_000) == -7_000
    assert proven_ahead(8_000, took_ms=9_000) == 8_000


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("/ip4/0.0.0.0/tcp/4001", 4001),
        ("/ip4/0.0.0.0/tcp/0", 0),
        ("/ip4/0.0.0.0/udp/4001/quic", 0),
        ("/ip4/0.0.0.0/tcp/99999", 0),
        ("/ip4/0.0.0.0/tcp/" + "9" * 9_000, 0),
        ("/ip4/0.0.0.0/tcp/²", 0),
        ("nonsense", 0),
    ],
)
def test_the_port_of_an_address_is_read_or_nought(address: str, port: int) -> None:
    assert tcp_port(address) == port


def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, list[dict[str, str]]]:
    result = CliRunner().invoke(
        app, ["doctor", *arguments, "--home", str(folder), "--json"], env=environment
    )
    return result.exit_code, json.loads(result.stdout)["findings"]


def test_a_blocked_port_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, findings = run(
            tmp_path, KINOSWARM_NODE_LISTEN=json.dumps([f"/ip4/127.0.0.1/tcp/{port}"])
        )
    assert code == ExitCode.LOCAL
    (blocked,) = [f for f in findings if str(port) in f["sentence"]]
    assert blocked["state"] == "wrong"
    assert f"(process {os.getpid()})" in blocked["sentence"]
    assert "choose another port" in blocked["to_do"]


def test_an_invite_that_was_cut_off_is_a_finding_beside_the_others(tmp_path: Path) -> None:
    code, findings = run(tmp_path, "kinoswarm1:AAAA")
    assert code == ExitCode.LOCAL
    assert "ask for the invite again" in findings[-1]["to_do"]
    assert {"disk", "graphics card", "reachability"} <= {f["name"] for f in findings}


def test_without_an_invite_it_says_that_the_network_was_not_tried(tmp_path: Path) -> None:
    _, findings = run(tmp_path)
    assert findings[-1]["to_do"] == "kinoswarm doctor INVITE"


def test_it_prints_one_line_each_and_leaves_nothing_behind(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--home", str(tmp_path / "new")])
    assert "graphics card: " in result.stdout
    assert not (tmp_path / "new").exists()
