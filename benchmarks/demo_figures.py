"""Prints the demo's figures beside their goals, from the report of a finished run.

    make demo && .venv/bin/python benchmarks/demo_figures.py demo-out/report.json [--save]

With --save the figures are kept in benchmarks/results/demo.json with machine and commit.
"""

import json
import subprocess
import sys
from pathlib import Path

GOALS = {
    "seconds in all": ("at most", 480.0),
    "peak memory, GB": ("at most", 5.0),
    "seconds from the demo's start to a node's first step": ("at most", 90.0),
    "Fréchet distance, release / seed version": ("at most", 1 / 3),
    "router accuracy at t = 0.5": ("at least", 0.8),
}
RESULT = Path(__file__).parent / "results" / "demo.json"


def figures(report: dict) -> dict[str, float]:
    """The measured counterparts of GOALS."""
    frechet = report["evaluation"]["frechet"]
    return {
        "seconds in all": report["seconds_total"],
        "peak memory, GB": report["peak_memory_bytes"] / 1e9,
        "seconds from the demo's start to a node's first step": report[
            "seconds_from_demo_to_first_step"
        ],
        "Fréchet distance, release / seed version": frechet["release_by_seed"],
        "router accuracy at t = 0.5": report["router_accuracy_by_t"]["0.5"],
    }


def main() -> int:
    report = json.loads(Path(sys.argv[1]).read_text())
    measured = figures(report)
    missed = 0
    for name, (direction, goal) in GOALS.items():
        value = measured[name]
        met = value <= goal if direction == "at most" else value >= goal
        missed += not met
        print(f"{'met   ' if met else 'MISSED'} {name}: {value:.3f} ({direction} {goal:.3f})")
    if "--save" in sys.argv:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        kept = {
            "command": "make demo",
            "commit": commit,
            "machine": report["machine"],
            "figures": measured,
            "report": report,
        }
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(kept, indent=2) + "\n")
    return missed


if __name__ == "__main__":
    sys.exit(main())
