"""The node as a launchd agent: known keys, and gone again with one command. launchctl is scripted."""

import os
import plistlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoswarm_node import launch_agent, service_unit, services
from kinoswarm_protocol.errors import LocalError

KEYS_OF_LAUNCHD = {
    *(
        "Label",
        "ProgramArguments",
        "WorkingDirectory",
        "RunAtLoad",
        "KeepAlive",
        "ThrottleInterval",
    ),
    *("ExitTimeOut", "Nice", "LowPriorityIO", "Umask", "StandardOutPath", "StandardErrorPath"),
}
"""Of launchd.plist(5); launchd passes over a misspelt one without a word."""


@pytest.fixture
def launchctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that notes what it is asked; no agent runs at first."""
    program = tmp_path / "bin" / "launchctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        f'[ "$1" = bootout ] && [ ! -e {tmp_path}/runs ] && echo "No such process" >&2 && exit 3\n'
        f"touch {tmp_path}/runs\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "asked"


def test_installing_starts_it_and_uninstalling_leaves_only_the_home(
    tmp_path: Path, launchctl: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    service = services.of_this_system("darwin")
    assert "runs now" in " ".join(service.install(home))
    agent = tmp_path / "Library" / "LaunchAgents" / "org.kinoswarm.node.plist"
    assert plistlib.loads(agent.read_bytes())["WorkingDirectory"] == str(home)
    service.uninstall()
    assert not agent.exists()
    assert home.is_dir()
    domain = f"gui/{os.getuid()}"
    assert launchctl.read_text().splitlines() == [
        f"bootout {domain}/org.kinoswarm.node",
        f"bootstrap {domain} {agent}",
        f"bootout {domain}/org.kinoswarm.node",
    ]
    with pytest.raises(LocalError, match="no service is installed"):
        service.uninstall()


def test_the_agent_restarts_what_failed_and_never_says_go_for_the_volunteer(tmp_path: Path) -> None:
    agent = plistlib.loads(launch_agent.text(tmp_path).encode())
    assert set(agent) == KEYS_OF_LAUNCHD
    assert agent["RunAtLoad"] is True
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["Umask"] == 0o077
    assert "--yes" in agent["ProgramArguments"]
    assert "--go" not in agent["ProgramArguments"]


def test_what_launchd_refuses_is_told(tmp_path: Path, launchctl: Path) -> None:
    (tmp_path / "bin" / "launchctl").write_text("#!/bin/sh\necho not today >&2\nexit 5\n")
    with pytest.raises(LocalError, match=r"bootstrap .* failed: not today"):
        launch_agent.install(tmp_path)


@given(st.text(min_size=1, max_size=40))
def test_any_path_is_written_so_that_it_reads_the_same_or_is_refused(name: str) -> None:
    home = Path("/Users") / name.replace("/", "_")
    try:
        text = launch_agent.text(home, "/usr/bin/python3")
    except LocalError:
        return
    assert plistlib.loads(text.encode())["ProgramArguments"][-1] == str(home)


def test_each_system_gets_its_own_manager_and_others_are_told_what_to_do() -> None:
    assert services.of_this_system("linux") is service_unit
    with pytest.raises(LocalError, match="Task Scheduler"):
        services.of_this_system("win32")
