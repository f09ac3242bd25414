"""`kinoswarm demo` at the tiny preset: interrupted in the middle, started again, and what it leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from e2e.processes import PATIENCE_S

pytestmark = pytest.mark.e2e


def demo(out: Path) -> "subprocess.Popen[str]":
    small = "--preset tiny --nodes 2 --clusters 2 --clips-per-scene 10 --evaluation-clips 16"
    return subprocess.Popen(
        [sys.executable, "-m", "kinoswarm_cli.main", "demo", "--out", str(out), *small.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_until_swarm_runs(process: "subprocess.Popen[str]", out: Path) -> list[psutil.Process]:
    """The demo's descendants, once a node has joined."""
    deadline = time.monotonic() + PATIENCE_S
    while not list(out.glob("nodes/*/status.json")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return psutil.Process(process.pid).children(recursive=True)


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """A suite that was started in the background ignores Ctrl-C, and so would the programs that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupted_demo_leaves_no_process_and_goes_on_to_its_report(tmp_path: Path) -> None:
    """Ctrl-C while the nodes train; then the same command."""
    out = tmp_path / "out"
    first = demo(out)
    family = wait_until_swarm_runs(first, out)
    assert len(family) >= 5
    first.send_signal(signal.SIGINT)
    _, complaint = first.communicate(timeout=60)
    assert first.returncode == 130, complaint
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []

    second = demo(out)
    try:
        told, complaint = second.communicate(timeout=2 * PATIENCE_S)
    finally:
        second.terminate()
    assert second.returncode == 0, complaint
    assert str(out / "contact-sheet.png") in told
    assert len(list((out / "generated").glob("*.mp4"))) == 8
    assert (out / "contact-sheet.png").stat().st_size > 10_000
    check_report(json.loads((out / "report.json").read_text()))


def check_report(report: dict) -> None:
    assert len(set(report["peer_ids"].values())) == 2
    assert {"coordinator", "node-0", "node-1"} <= set(report["processes"])
    assert set(report["versions_by_cluster"].values()) == {2}
    assert sum(report["contributions_by_state"].values()) >= 4
    assert report["bytes_moved_by_coordinator"]["up"] > 0
    assert set(report["router_accuracy_by_t"]) >= {"0.1", "0.5", "0.9"}
    assert sum(report["share_by_expert"]) == pytest.approx(1.0, abs=1e-3)
    frechet = report["evaluation"]["frechet"]
    assert frechet["release"]["num_clips"] == 16
    assert frechet["seed"]["value"] > 0
    assert frechet["floor"] > 0
    assert {"start", "train", "evaluate"} <= set(report["seconds_by_phase"])
    assert report["peak_memory_bytes"] > 100_000_000
