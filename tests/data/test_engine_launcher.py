"""No game engine outlives the process that filmed with it."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FILM_AND_DIE = """
import os, signal
from pathlib import Path
from kinoswarm_model.data.filming import stage_at
from kinoswarm_model.data.scenes import SCENES

with stage_at(SCENES[2], 0):
    tasks = Path("/proc/self/task").iterdir()
    children = [pid for task in tasks for pid in (task / "children").read_text().split()]
    [engine] = children
    print(engine, os.readlink(f"/proc/{engine}/exe"), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the Linux kernel for it")
def test_a_killed_renderer_takes_its_engine_along(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", FILM_AND_DIE],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            "PYTHONPATH": f"{root / 'protocol'}:{root / 'model'}",
            "PATH": "/usr/bin:/bin",
            "TMPDIR": str(tmp_path),
        },
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    pid, program = ended.stdout.split()
    assert Path(program).name == "vizdoom"
    try:
        handle = os.pidfd_open(int(pid))
    except ProcessLookupError:
        return
    try:
        gone, _, _ = select.select([handle], [], [], 20.0)
    finally:
        os.close(handle)
    assert gone, f"engine {pid} still runs"
