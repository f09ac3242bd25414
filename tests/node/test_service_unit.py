"""The node as a systemd service: a unit that systemd itself accepts, hardened, and gone again with one command."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoswarm_node import service_unit
from kinoswarm_protocol.errors import LocalError


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("folder", ["home", "a home with $paces 100%"])
def test_systemd_accepts_the_unit(tmp_path: Path, folder: str) -> None:
    unit = tmp_path / service_unit.UNIT
    unit.write_text(service_unit.text(tmp_path / folder))
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(unit)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    complaints = [line for line in done.stderr.splitlines() if service_unit.UNIT in line]
    assert complaints == []


def test_the_unit_is_hardened_and_ends_everything(tmp_path: Path) -> None:
    text = service_unit.text(tmp_path)
    for line in (
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        f"ReadWritePaths={tmp_path}",
        "KillMode=control-group",
    ):
        assert line in text.splitlines()
    assert "--yes" in text
    assert "--go" not in text, "the volunteer says go, not the service"


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that notes what it is asked."""
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "asked"


def test_installing_starts_it_and_uninstalling_leaves_only_the_home(
    tmp_path: Path, systemctl: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert "runs now" in " ".join(service_unit.install(home))
    unit = tmp_path / "config" / "systemd" / "user" / service_unit.UNIT
    assert unit.is_file()
    service_unit.uninstall()
    assert not unit.exists()
    assert home.is_dir()
    assert systemctl.read_text().splitlines() == [
        "--user daemon-reload",
        f"--user enable --now {service_unit.UNIT}",
        f"--user disable --now {service_unit.UNIT}",
    ]
    with pytest.raises(LocalError, match="no service is installed"):
        service_unit.uninstall()


def test_what_systemd_refuses_is_told(tmp_path: Path, systemctl: Path) -> None:
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\necho no bus >&2\nexit 1\n")
    with pytest.raises(LocalError, match="daemon-reload failed: no bus"):
        service_unit.install(tmp_path)


@given(st.text(min_size=1, max_size=40))
def test_no_path_breaks_out_of_its_line(name: str) -> None:
    try:
        text = service_unit.text(Path("/homes") / name.replace("/", "_"), "/usr/bin/python3")
    except LocalError:
        return
    assert len(text.splitlines()) == len(service_unit.text(Path("/h"), "/p").splitlines())
