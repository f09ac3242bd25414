"""report.json of the demo: what ran and what was measured. Owns its fields; every figure comes from the run itself."""

import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from kinoswarm_cli.demo_processes import Child
from kinoswarm_cli.demo_watch import Watch
from kinoswarm_network.durable import write_atomic

REPORT = "report.json"


@dataclass
class RunFacts:
    """What is only seen while the swarm trains."""

    processes: dict[str, int]
    seconds_to_first_step: float | None = None
    """From the start of the nodes to the first optimizer step that one reported."""

    def note_progress(self, status: dict[str, Any], seconds: float) -> None:
        """Look at one status."""
        if self.seconds_to_first_step is None and any(node["step"] for node in status["nodes"]):
            self.seconds_to_first_step = seconds

    def is_finished(self, status: dict[str, Any], target: int) -> bool:
        """Whether a published release holds every expert at its target."""
        return any(
            release["published"] and min(release["considered"]) >= target
            for release in status["releases"]
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "processes": self.processes,
            "seconds_from_join_to_first_step": self.seconds_to_first_step,
        }


def facts_of_run(coordinator: Child, nodes: list[Child]) -> RunFacts:
    """Begin to watch a run."""
    return RunFacts({child.name: child.process.pid for child in [coordinator, *nodes]})


@dataclass(frozen=True)
class DemoReport:
    """The report and where it lies."""

    out: Path
    content: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return self.content

    def in_words(self) -> str:
        """The end of the demo on a terminal."""
        figures = self.content["evaluation"]["frechet"]
        accuracy = self.content["router_accuracy_by_t"].get("0.5")
        lines = [
            f"Clips:          {self.out / 'generated'}",
            f"Contact sheet:  {self.out / 'contact-sheet.png'}",
            f"Release:        {self.out / 'model'}",
            f"Report:         {self.out / REPORT}",
            f"Fréchet distance on TransNetV2 features: {figures['release']['value']:.3f} "
            f"(seed version {figures['seed']['value']:.3f}, real against real {figures['floor']:.3f})",
            f"Router accuracy on held-out clips at t = 0.5: {accuracy:.0%}" if accuracy else "",
            f"Took {self.content['seconds_total']:.0f} s, "
            f"at most {self.content['peak_memory_bytes'] / 1e9:.1f} GB of memory.",
        ]
        return "\n".join(line for line in lines if line)


def make_report(
    out: Path, status: dict[str, Any] | None, facts: dict[str, Any], watch: Watch
) -> DemoReport:
    """Collect and write the report."""
    status = status or {}
    router = status.get("router") or {}
    releases = status.get("releases") or [{}]
    content = {
        **facts,
        "machine": {
            "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "cores": psutil.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        "peer_ids": {node["pseudonym"]: node["peer"] for node in status.get("nodes", [])},
        "versions_by_cluster": {
            cluster["label"]: cluster["version"] for cluster in status.get("clusters", [])
        },
        "heldout_loss_by_cluster": {
            cluster["label"]: [v["heldout_loss"] for v in cluster["versions"]]
            for cluster in status.get("clusters", [])
        },
        "contributions_by_state": status.get("contributions_by_state", {}),
        "bytes_moved_by_coordinator": {
            "up": status.get("bytes_up", 0),
            "down": status.get("bytes_down", 0),
        },
        "router_accuracy_by_t": {
            f"{t:.1f}": accuracy for t, accuracy in router.get("accuracy_by_t", [])
        },
        "router_calibration_error": router.get("calibration_error"),
        "share_by_expert": releases[-1].get("share_by_expert", []),
        "evaluation": json.loads((out / "evaluation.json").read_text()),
        "seconds_by_phase": watch.seconds_by_phase,
        "seconds_total": sum(watch.seconds_by_phase.values()),
        "peak_memory_bytes": watch.peak_memory_bytes,
        "processes_at_peak": watch.peak_process_count,
        "seconds_from_demo_to_first_step": _from_the_start(facts, watch),
    }
    write_atomic(out / REPORT, json.dumps(content, indent=2).encode(), mode=0o644)
    return DemoReport(out, content)


def _from_the_start(facts: dict[str, Any], watch: Watch) -> float | None:
    """From the start of the demo to the first optimizer step of a node."""
    waited = facts["seconds_from_join_to_first_step"]
    before = ("render", "prepare", "found", "start")
    spent = sum(watch.seconds_by_phase.get(phase, 0.0) for phase in before)
    return None if waited is None else spent + waited
