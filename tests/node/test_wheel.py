"""The built wheel in a fresh environment: installs from the package index alone, and its commands answer."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(out: Path) -> Path:
    """The wheel, built with the installed hatchling."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


def test_the_wheel_holds_every_package_and_the_pages_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(build(tmp_path)) as wheel:
        names = set(wheel.namelist())
    for name in (
        *("kinoswarm_cli/main.py", "kinoswarm_node/daemon.py", "kinoswarm_protocol/messages.py"),
        *("kinoswarm_node/page/assets/page.html", "kinoswarm_node/page/assets/page.js"),
    ):
        assert name in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


@pytest.mark.slow
def test_a_fresh_environment_installs_the_wheel_and_the_program_answers(tmp_path: Path) -> None:
    wheel = build(tmp_path)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    given = [f"{wheel}[node]", "--constraint", str(constraints)]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *given], check=True, cwd=tmp_path)
    program = tmp_path / "venv" / "bin" / "kinoswarm"
    for arguments in (["--version"], ["join", "--help"], ["service", "show"]):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    imports = (
        "import kinoswarm_node.wiring, kinoswarm_node.page.server, kinoswarm_model.worker_jobs"
    )
    subprocess.run([python, "-c", imports], check=True, cwd=tmp_path)
