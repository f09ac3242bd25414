"""The simulator at the sizes that count: time, memory, and what it found. Each run is a process of its own.

    python benchmarks/simulator.py [--out benchmarks/results/simulator.txt] [--plots docs/images]

10,000 volunteers for a day and 1,000 for a week are to take at most 300 s each. Hostile runs follow at a smaller size.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_GOAL_S = 300.0


@dataclass(frozen=True)
class Run:
    """One call of `kinoswarm simulate`."""

    name: str
    arguments: tuple[str, ...]
    draws: bool = False


RUNS = (
    Run("10,000 volunteers, one day", ("--nodes", "10000", "--days", "1")),
    Run("1,000 volunteers, one week", ("--nodes", "1000", "--days", "7"), draws=True),
    Run(
        "1,000 volunteers, three days, 30% hostile",
        (
            *("--nodes", "1000", "--days", "3"),
            *(
                f"--hostile={name}=0.05"
                for name in ("lazy", "random", "poison", "colluding", "until-trusted", "scaled")
            ),
        ),
    ),
)


@dataclass(frozen=True)
class Taken:
    """What one run cost and found."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    report: dict[str, Any]


def take(run: Run, plots: Path | None) -> Taken:
    """Run it in a process of its own."""
    drawn = ["--plots", str(plots)] if plots is not None and run.draws else []
    command = [sys.executable, "-m", "kinoswarm_cli.main", "simulate", *run.arguments, *drawn]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Taken(
        seconds=time.monotonic() - started,
        cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        peak_bytes=after.ru_maxrss * 1024,
        report=json.loads(done.stdout),
    )


def lines_of(run: Run, taken: Taken) -> list[str]:
    """One run as text."""
    found = taken.report
    verdict = "within" if taken.seconds <= _GOAL_S else "MISSES"
    lines = [
        f"{run.name}: kinoswarm simulate {' '.join(run.arguments)}",
        f"  {taken.seconds:.0f} s ({verdict} {_GOAL_S:.0f} s), {taken.cpu_seconds:.0f} s of processor, "
        f"at most {taken.peak_bytes / 1e6:.0f} MB so far, {found['events']:,} events of the log",
        f"  utilisation {found['utilisation']:.1%}, idle {found['idle']:.1%}, lost "
        + ", ".join(f"{name} {share:.1%}" for name, share in found["lost"].items()),
        f"  verification {found['verification_share']:.1%} of the training, by day "
        + ", ".join(f"{share:.1%}" for share in found["verification_by_day"]),
        f"  lost work leased again after {found['reissue_s_median']:.0f} s (median), "
        f"{found['reissue_s_p99']:.0f} s (99%)",
        f"  versions of experts {found['versions_least']} to {found['versions_most']}, "
        f"coordinator {found['coordinator_bytes_per_s'] / 1e6:.1f} MB/s, honest volunteers banned "
        f"{found['honest_banned']}",
    ]
    for row in found["detections"]:
        if row["behaviour"] != "honest":
            lines.append(
                f"  {row['behaviour']:<12}{row['volunteers']:>5} volunteers, {row['banned']:>4} banned; "
                f"{row['contributions']:>6} bad contributions, {row['refused']:>6} refused, {row['merged']:>4} merged"
            )
    return lines


def main() -> None:
    """All runs; prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plots", type=Path)
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    lines = [
        f"python benchmarks/simulator.py: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, commit {commit}",
    ]
    for run in RUNS:
        lines += ["", *lines_of(run, take(run, options.plots))]
        print("\n".join(lines[-12:]), flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
