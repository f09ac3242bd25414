"""`data prepare --engine ray` on a real Ray: the local engine's bytes, and nothing left behind.

pip install 'kinoswarm[ray]' && pytest -m slow tests/data/test_ray.py
"""

import ipaddress
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from data.conftest import coloured_clip, files_of
from data.tiny_videos import write_video

pytest.importorskip("ray", reason="pip install 'kinoswarm[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "model", "coordinator", "node")
CLI = [sys.executable, "-m", "kinoswarm_cli.main", "data", "prepare", "--clusters", "2"]

DIES_AT_FEATURES = """
import os, signal, sys
from pathlib import Path
from kinoswarm_model.data.prepare import PrepareConfig, prepare
from kinoswarm_model.data.ray_session import ray_engine

def report(done, total, what):
    if what == "extracting features":
        os.kill(os.getpid(), signal.SIGKILL)

with ray_engine() as engine:
    prepare(Path(sys.argv[1]), Path(sys.argv[2]), PrepareConfig(num_clusters=2), report, engine)
"""

WORKER_DIES = """
import functools, os
from kinoswarm_model.data.engine import Work
from kinoswarm_model.data.errors import EngineError
from kinoswarm_model.data.ray_session import ray_engine

with ray_engine() as engine:
    work = Work(run=os._exit, load=functools.partial(getattr, os, "_exit"))
    said = []
    try:
        list(engine.map(work, [3]))
    except EngineError as error:
        said.append(str(error))
    missing = Work(run=os.stat, load=functools.partial(getattr, os, "stat"))
    try:
        list(engine.map(missing, ["/nowhere"]))
    except EngineError as error:
        said.append(str(error))
print(*said, sep="\\n")
"""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A short folder: Unix sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="kr", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def environment(temporary: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in PACKAGES),
        "PATH": "/usr/bin:/bin",
        "HOME": str(temporary / "home"),
        "TMPDIR": str(temporary),
    }


def run(command: list[str], temporary: Path) -> "subprocess.CompletedProcess[str]":
    env = environment(temporary)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)


def of_ray(temporary: Path) -> list[psutil.Process]:
    """Processes that Ray started with its files in `temporary`."""
    found = []
    for process in psutil.process_iter():
        try:
            if f"{temporary}/ks-ray-" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_nothing_is_left(temporary: Path) -> None:
    _, alive = psutil.wait_procs(of_ray(temporary), timeout=60)
    assert alive == []
    assert list(temporary.glob("ks-ray-*")) == []
    assert not (temporary / "home/.ray").exists(), "a token that outlives the run"


@pytest.fixture(scope="module")
def source(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, a broken and a still one, a copy, and two more in a tar file."""
    folder = tmp_path_factory.mktemp("ray") / "clips"
    shutil.copytree(clips, folder)
    shutil.copy(folder / "004.mp4", folder / "copy.mp4")
    (folder / "broken.mp4").write_bytes(bytes(range(256)))
    write_video(folder / "still.mp4", coloured_clip(99, True)[:1].repeat(8, axis=0), fps=8)
    for name in ("copy", "broken", "still"):
        (folder / f"{name}.txt").write_text("a wall")
    with tarfile.open(folder / "more.tar", "w") as packed:
        for name in ("022", "023"):
            for suffix in (".mp4", ".txt"):
                packed.add(folder / f"{name}{suffix}", f"{name}{suffix}")
                (folder / f"{name}{suffix}").unlink()
    return folder


@pytest.fixture(scope="module")
def local(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("local") / "data"
    ended = run([*CLI, str(source), str(out)], out.parent)
    assert ended.returncode == 0, ended.stderr
    return files_of(out)


def test_it_gives_the_local_engines_bytes_and_leaves_nothing(
    source: Path, local: dict[str, bytes], tmp_path: Path, temporary: Path
) -> None:
    ended = run([*CLI, "--engine", "ray", str(source), str(tmp_path / "out")], temporary)
    assert ended.returncode == 0, ended.stderr
    assert files_of(tmp_path / "out") == local
    assert_nothing_is_left(temporary)


def test_killed_it_leaves_no_process_and_the_same_command_goes_on(
    source: Path, local: dict[str, bytes], tmp_path: Path, temporary: Path
) -> None:
    out = tmp_path / "out"
    ended = run([sys.executable, "-c", DIES_AT_FEATURES, str(source), str(out)], temporary)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    _, alive = psutil.wait_procs(of_ray(temporary), timeout=60)
    assert alive == []
    ended = run([*CLI, "--engine", "ray", str(source), str(out)], temporary)
    assert ended.returncode == 0, ended.stderr
    assert "decoding videos" not in ended.stderr
    assert files_of(out) == local
    assert_nothing_is_left(temporary)


def test_on_one_machine_it_listens_on_loopback_and_ctrl_c_ends_it_whole(
    source: Path, tmp_path: Path, temporary: Path
) -> None:
    with subprocess.Popen(
        # A background job, which this may run in, ignores Ctrl-C.
        [
            "env",
            "--default-signal=INT",
            *CLI,
            "--engine",
            "ray",
            str(source),
            str(tmp_path / "out"),
        ],
        env=environment(temporary),
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        next(line for line in running.stderr if line.startswith("decoding videos"))
        everyone = [psutil.Process(running.pid), *psutil.Process(running.pid).children(True)]
        listening = [
            connection.laddr.ip
            for process in everyone
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        running.send_signal(signal.SIGINT)
        running.stderr.read()
    assert running.returncode == 130
    addresses = [ipaddress.ip_address(ip.removeprefix("::ffff:")) for ip in listening]
    assert addresses
    assert all(address.is_loopback for address in addresses), listening
    assert_nothing_is_left(temporary)


def test_a_process_that_dies_and_a_file_that_is_not_there_are_told(temporary: Path) -> None:
    ended = run([sys.executable, "-c", WORKER_DIES], temporary)
    assert ended.returncode == 0, ended.stderr
    died, missing = ended.stdout.splitlines()
    assert "Ray broke off" in died
    assert "run the same command again" in died
    assert "No such file or directory: '/nowhere'" in missing
    assert_nothing_is_left(temporary)
