"""A soak: one node takes thousands of tiny segments from a real coordinator; memory and handles must stay flat.

    .venv/bin/python benchmarks/soak.py --minutes 30 [--save]

Founds a swarm at the tiny preset with very short segments that never ends, joins it with one node, and looks at every
process of the node every few seconds. Prints the slope of memory, open files and threads over the second half, as a
share of their level an hour: flat is near 0. With --save the samples and a plot are kept in benchmarks/results/.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
LOOK_EVERY_S = 5.0
SEGMENT_STEPS = 1
POLICY = {
    "quorum_samples": 4096,
    "grace_s": 600.0,
    "heldout_pairs": 2,
}
"""A version in some hundred segments, a short test of each: the machine's time is the node's, not the coordinator's."""
RULES = {
    "OMP_NUM_THREADS": "1",
    "KINOSWARM_NODE_WHEN_ACTIVE": "yes",
    "KINOSWARM_NODE_ON_BATTERY": "true",
    "KINOSWARM_NODE_MAX_OTHER_CPU_PERCENT": "0",
    "KINOSWARM_NODE_NICE": "0",
}
PATIENCE_S = 120.0
DEATH = "The worker process ended"
KINDS = ("memory_bytes", "open_files", "threads")
PROCESSES = {
    "kinoswarm_model.worker": "worker",
    "kinoswarm_network": "network",
    "p2pd": "p2pd",
    "kinoswarm_cli": "daemon",
}
"""What a process's command line holds, and what it is called."""


@dataclass(frozen=True)
class Sample:
    """The node's processes at one moment."""

    seconds: float
    segments: int
    memory_bytes: int
    open_files: int
    threads: int
    load: float
    """Of the whole machine, over a minute: how many processes want a core."""
    memory_by_process: dict[str, int]
    """Bytes resident of each kind of process."""


def run(*arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", "kinoswarm_cli.main", *map(str, arguments)],
        check=True,
        env={**os.environ, **RULES},
    )


def start(log: Path, *arguments: object) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "kinoswarm_cli.main", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **RULES},
        )


def found(root: Path) -> Path:
    """A swarm whose clusters never rest."""
    run("data", "render", root / "clips", "--clips-per-scene", 8)
    run("data", "prepare", root / "clips", root / "data", "--clusters", 1)
    run(
        *("swarm", "create", root / "data", "--name", "Soak", "--out", root / "swarm"),
        *("--preset", "tiny", "--target-version", 1_000_000, "--segment-steps", SEGMENT_STEPS),
        *("--threads", 1),
    )
    changes = [word for name, value in POLICY.items() for word in ("--policy", f"{name}={value}")]
    run("swarm", "amend", root / "swarm", *changes)
    return root / "swarm"


def look(node: psutil.Process, history: Path, started_s: float) -> Sample:
    memory, files, threads = Counter[str](), 0, 0
    for process in [node, *node.children(recursive=True)]:
        try:
            memory[kind_of(process)] += process.memory_info().rss
            files += process.num_fds()
            threads += process.num_threads()
        except psutil.Error:
            continue
    segments = len(history.read_bytes().splitlines()) if history.exists() else 0
    seconds, load = time.monotonic() - started_s, os.getloadavg()[0]
    return Sample(seconds, segments, memory.total(), files, threads, load, dict(memory))


def kind_of(process: psutil.Process) -> str:
    """Which of the node's processes this is."""
    words = " ".join(process.cmdline())
    return next((kind for mark, kind in PROCESSES.items() if mark in words), "other")


def slope_per_hour(samples: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    """Least squares over the second half, as a share of the median level."""
    half = samples[len(samples) // 2 :]
    slope, _ = statistics.linear_regression([s.seconds for s in half], [value(s) for s in half])
    return 3600 * slope / statistics.median(value(s) for s in half)


def figures(samples: Sequence[Sample], deaths: int) -> dict[str, float]:
    """What the soak says; `deaths` of the worker."""
    slopes = {
        f"{kind}, share an hour": slope_per_hour(samples, lambda s, k=kind: float(getattr(s, k)))
        for kind in KINDS
    }
    return {
        "minutes": samples[-1].seconds / 60,
        "segments": float(samples[-1].segments),
        "deaths of the worker": float(deaths),
        "mean load of the machine": statistics.fmean(s.load for s in samples),
        "peak memory, MB": max(s.memory_bytes for s in samples) / 1e6,
        **slopes,
        **growth(samples),
    }


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """How much more memory each process has in the last tenth than in the second one, in MB."""
    tenth = max(1, len(samples) // 10)

    def level(kind: str, part: Sequence[Sample]) -> float:
        return statistics.median(s.memory_by_process.get(kind, 0) for s in part) / 1e6

    return {
        f"growth of the {kind}, MB": level(kind, samples[-tenth:])
        - level(kind, samples[tenth : 2 * tenth])
        for kind in PROCESSES.values()
    }


def plot(samples: Sequence[Sample], path: Path) -> None:
    """One panel a kind, from zero up, so that a rise can be seen for what it is."""
    minutes = [sample.seconds / 60 for sample in samples]
    panels = {
        "memory, MB": [sample.memory_bytes / 1e6 for sample in samples],
        "open files": [sample.open_files for sample in samples],
        "threads": [sample.threads for sample in samples],
        "segments done": [sample.segments for sample in samples],
        "load of the machine": [sample.load for sample in samples],
    }
    figure = Figure(figsize=(9, 9), layout="constrained")
    for axes, (name, values) in zip(
        figure.subplots(len(panels), 1, sharex=True), panels.items(), strict=True
    ):
        axes.plot(minutes, values, color="#1f5fbf", linewidth=1)
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_ylim(0, 1.15 * max(1.0, *values))
        axes.grid(alpha=0.3)
    axes.set_xlabel("minutes since the first verdict")
    figure.savefig(path, dpi=110)


def history_of(home: Path) -> Path:
    return next(iter(home.glob("swarms/*/history.jsonl")), home / "none")


def await_first(home: Path, node: "subprocess.Popen[bytes]") -> None:
    """The clock starts with the first verdict: starting up is no part of a soak."""
    while not history_of(home).exists() and node.poll() is None:
        time.sleep(LOOK_EVERY_S)


def soak(root: Path, minutes: float) -> list[Sample]:
    swarm = found(root)
    coordinator = start(root / "coordinator.log", "swarm", "serve", swarm)
    home, samples = root / "node", []
    node = start(
        root / "node.log",
        *("join", swarm / "invite.txt", "--yes", "--go", "--home", home),
        *("--threads", 1, "--device", "cpu", "--listen", "/ip4/127.0.0.1/tcp/0"),
    )
    try:
        await_first(home, node)
        started_s = time.monotonic()
        while time.monotonic() - started_s < 60 * minutes:
            time.sleep(LOOK_EVERY_S)
            if node.poll() is not None or coordinator.poll() is not None:
                raise SystemExit(f"a process ended; see {root}")
            samples.append(look(psutil.Process(node.pid), history_of(home), started_s))
    finally:
        for process in (node, coordinator):
            process.terminate()
            process.wait(PATIENCE_S)
    return samples


def about() -> dict[str, str]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
    return {
        "command": " ".join(["benchmarks/soak.py", *sys.argv[1:]]),
        "machine": machine + f"Python {platform.python_version()}",
        "commit": commit.stdout.strip(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--save", action="store_true", help="keep samples and plot")
    options = parser.parse_args()
    begun = about()
    with tempfile.TemporaryDirectory(prefix="kinoswarm-soak-") as root:
        samples = soak(Path(root), options.minutes)
        deaths = (Path(root) / "node.log").read_text().count(DEATH)
    measured = figures(samples, deaths)
    for name, value in measured.items():
        print(f"{name:32} {value:10.4g}")
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        result = {**begun, "figures": measured, "samples": [asdict(s) for s in samples]}
        (RESULTS / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
        plot(samples, RESULTS / "soak.png")


if __name__ == "__main__":
    main()
