"""The same experts once more, through the real swarm: founder, coordinator, volunteers, a DHT, kill -9. Owns the run.

Everything is a `kinoswarm` process of its own. Six volunteers differ in threads, micro-batch, arithmetic, kernels,
share of the time and transport; every so often one of them is killed with all its processes and started again. The
experts are read from the release that a stranger downloads.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from benchmarks.quality.cells import Cell, commit_here
from benchmarks.quality.clips import QualityData
from benchmarks.quality.grid import Grid
from benchmarks.quality.latents import LatentCodec, fit_codec
from benchmarks.quality.regime import Regime
from benchmarks.quality.run import Bench, Trained, measured_cell
from benchmarks.quality.sides import Setup, Spent, TrainedSide, budget_of, partition_of
from benchmarks.quality.swarm_data import SwarmPlan, swarm_model, swarm_preset, write_data

from kinoswarm_cli.demo_processes import Child, ProcessTrees
from kinoswarm_cli.demo_status import page_address, read_status
from kinoswarm_coordinator.founding import FoundingConfig, create_swarm
from kinoswarm_model.release_reader import open_release
from kinoswarm_network.durable import write_atomic
from kinoswarm_protocol.errors import LocalError

Report = Callable[[str], None]
_LOOK_EVERY_S = 1.0
_PATIENCE_S = 5_400.0
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "KINOSWARM_NODE_RESUME_EVERY_S": "5",
    "KINOSWARM_NODE_WHEN_ACTIVE": "yes",
    "KINOSWARM_NODE_ON_BATTERY": "true",
    "KINOSWARM_NODE_MAX_OTHER_CPU_PERCENT": "0",
    "KINOSWARM_NODE_NICE": "0",
    "KINOSWARM_NODE_PAGE_PORT": "0",
    "KINOSWARM_NODE_SAMPLE_EVERY": "0",
    "KINOSWARM_COORDINATOR_PROMPTS": "[]",
}
"""Nodes share two cores with each other: nobody steps aside for anybody. No sample clips: a caption of one token is
none of the encoder's, and the VAE is random."""


@dataclass(frozen=True, kw_only=True)
class Volunteer:
    """What one of them has set."""

    name: str
    words: str
    environment: dict[str, str]


VOLUNTEERS = (
    Volunteer(name="plain", words="1 thread, float32", environment={}),
    Volunteer(
        name="two-threads",
        words="2 threads, micro-batch 32",
        environment={"KINOSWARM_NODE_THREADS": "2", "KINOSWARM_NODE_MICRO_BATCH": "32"},
    ),
    Volunteer(
        name="small",
        words="micro-batch 8",
        environment={"KINOSWARM_NODE_MICRO_BATCH": "8"},
    ),
    Volunteer(
        name="bfloat16",
        words="bfloat16",
        environment={"KINOSWARM_NODE_PRECISION": "bfloat16"},
    ),
    Volunteer(
        name="half-time",
        words="half of the time, micro-batch 16, kernels without vector units",
        environment={
            "KINOSWARM_NODE_SHARE_PERCENT": "50",
            "KINOSWARM_NODE_MICRO_BATCH": "16",
            "ATEN_CPU_CAPABILITY": "default",
        },
    ),
    Volunteer(
        name="web-only",
        words="HTTPS alone, AVX2 kernels",
        environment={"KINOSWARM_NODE_HTTPS_ONLY": "true", "ATEN_CPU_CAPABILITY": "avx2"},
    ),
)


@dataclass(frozen=True, kw_only=True)
class Churn:
    """One volunteer after another is killed and comes back."""

    every_s: float = 60.0
    away_s: float = 8.0
    seed: int = 0


@dataclass
class RunRecord:
    """What happened, for the cell's note."""

    seconds: float = 0.0
    kills: list[str] = field(default_factory=list)
    contributions: dict[str, int] = field(default_factory=dict)
    accepted_by_volunteer: dict[str, int] = field(default_factory=dict)

    def words(self, plan: SwarmPlan) -> str:
        """A sentence or two for the table."""
        nodes = "; ".join(f"{v.name}: {v.words}" for v in VOLUNTEERS)
        return (
            f"{len(VOLUNTEERS)} volunteers ({nodes}); {plan.versions} versions of every expert, int4 deltas; "
            f"{len(self.kills)} kill -9 in {self.seconds:.0f} s; contributions {json.dumps(self.contributions)}; "
            f"accepted {json.dumps(self.accepted_by_volunteer)}"
        )


class SwarmRun:
    """One swarm in `folder`, which the same call goes on with after an interruption."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._folder = folder
        self._report = report
        self._trees = {
            v.name: ProcessTrees(folder / "logs", {**_ENVIRONMENT, **v.environment})
            for v in VOLUNTEERS
        }
        self._operator = ProcessTrees(folder / "logs", _ENVIRONMENT)
        self._nodes: dict[str, Child] = {}
        self.record = RunRecord()

    @property
    def _swarm(self) -> Path:
        return self._folder / "swarm"

    def train(self, versions: int, churn: Churn) -> None:
        """Serve, join, kill and restart until a release holds every expert at its last version; then download it."""
        started = time.monotonic()
        coordinator = self._operator.start(
            "coordinator", ["swarm", "serve", str(self._swarm), "--threads", "1"]
        )
        try:
            self._wait(lambda: self._status(coordinator) is not None, coordinator)
            for volunteer in VOLUNTEERS:
                self._start(volunteer)
            self._until_released(coordinator, versions, churn)
            self.record.seconds = time.monotonic() - started
            self._note(self._status(coordinator) or {})
            invite = str(self._swarm / "invite.txt")
            out = str(self._folder / "model")
            download = self._operator.start("download", ["download", invite, "--out", out])
            if download.process.wait() != 0:
                raise LocalError(f"the download failed:\n{download.last_words()}")
        finally:
            for trees in (*self._trees.values(), self._operator):
                trees.end()

    def _until_released(self, coordinator: Child, versions: int, churn: Churn) -> None:
        chance = np.random.default_rng(churn.seed)
        order = [VOLUNTEERS[i] for i in chance.permutation(len(VOLUNTEERS))]
        next_kill, returning = time.monotonic() + churn.every_s, dict[str, float]()

        def released() -> bool:
            nonlocal next_kill
            now = time.monotonic()
            for name in [name for name, at in returning.items() if now >= at]:
                del returning[name]
                self._start(next(v for v in VOLUNTEERS if v.name == name))
            if now >= next_kill:
                victim = order[len(self.record.kills) % len(order)]
                self._kill(victim.name)
                returning[victim.name] = now + churn.away_s
                next_kill = now + churn.every_s
            status = self._status(coordinator)
            return status is not None and any(
                release["published"] and min(release["considered"]) >= versions
                for release in status["releases"]
            )

        self._wait(released, coordinator)

    def _start(self, volunteer: Volunteer) -> None:
        home = self._folder / "nodes" / volunteer.name
        flags = ["--yes", "--go", "--home", str(home), "--pseudonym", volunteer.name]
        if "KINOSWARM_NODE_THREADS" not in volunteer.environment:
            flags += ["--threads", "1"]
        arguments = ["join", str(self._swarm / "invite.txt"), *flags]
        arguments += ["--listen", "/ip4/127.0.0.1/tcp/0", "--device", "cpu"]
        self._nodes[volunteer.name] = self._trees[volunteer.name].start(volunteer.name, arguments)

    def _kill(self, name: str) -> None:
        """All of its processes at once, at whatever moment this is."""
        node = psutil.Process(self._nodes[name].process.pid)
        for process in [*node.children(recursive=True), node]:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._nodes[name].process.wait()
        self.record.kills.append(name)
        self._report(f"killed {name}")

    def _wait(self, condition: Callable[[], bool], coordinator: Child) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            if not coordinator.running:
                raise LocalError(f"the coordinator ended:\n{coordinator.last_words()}")
            if time.monotonic() > deadline:
                raise LocalError(
                    f"the swarm is not done in {_PATIENCE_S:.0f} s; see {self._folder}"
                )
            time.sleep(_LOOK_EVERY_S)

    def _status(self, coordinator: Child) -> dict[str, Any] | None:
        return read_status(page_address(self._swarm)) if coordinator.running else None

    def _note(self, status: dict[str, Any]) -> None:
        self.record.contributions = status.get("contributions_by_state", {})
        self.record.accepted_by_volunteer = {
            node["pseudonym"]: node["accepted"] for node in status.get("nodes", [])
        }


def swarm_cell(
    bench: Bench, grid: Grid, name: str, seed: int, folder: Path, report: Report
) -> Cell:
    """The entry of this name and seed, trained by the swarm in `folder` and measured as the grid does.

    Raises LocalError when the grid has none.
    """
    found = [entry for entry in grid.entries if (entry.name, entry.seed) == (name, seed)]
    if not found:
        raise LocalError(f"the grid has no {name} with seed {seed}")
    entry = replace(found[0], name=f"{name}-swarm", in_full=True, all_routings=False)
    plan = SwarmPlan(seed=seed)
    trained = train_through_swarm(bench.data, grid.regime, entry.setup, plan, folder, report)
    return measured_cell(bench, grid, entry, trained, report)


def train_through_swarm(
    data: QualityData,
    regime: Regime,
    setup: Setup,
    plan: SwarmPlan,
    folder: Path,
    report: Report,
) -> Trained:
    """Found, train, download; the experts and the router of the release, and how they came about.

    Its time is the clock's. A call that finds the model trained tells what the call that trained it wrote down.
    """
    run = SwarmRun(folder, report)
    _found(data, regime, setup, folder, plan)
    record = folder / "record.json"
    if not record.is_file():
        report(f"training with {len(VOLUNTEERS)} volunteers")
        commit = commit_here()
        run.train(plan.versions, Churn())
        kept = {"note": run.record.words(plan), "seconds": run.record.seconds, "commit": commit}
        write_atomic(record, json.dumps(kept).encode())
    told = json.loads(record.read_text())
    side = _downloaded(data, regime, setup, folder / "model", plan)
    return Trained(side, told["seconds"], told["commit"], told["note"])


def _found(data: QualityData, regime: Regime, setup: Setup, folder: Path, plan: SwarmPlan) -> None:
    if (folder / "swarm" / "invite.txt").is_file():
        return
    assert regime.latent is not None, "this row needs a regime with a codec"
    codec: LatentCodec = fit_codec(data.fit.pixels, regime.latent)
    floor = replace(data.floor, latents=codec.encode(data.floor.pixels))
    write_data(folder / "data", data, floor, regime, setup, plan.seed)
    config = FoundingConfig(
        name="Quality", own=swarm_preset(regime, setup, plan), threads=1, seed=plan.seed
    )
    create_swarm(folder / "data", folder / "swarm", config)


def _downloaded(
    data: QualityData, regime: Regime, setup: Setup, model: Path, plan: SwarmPlan
) -> TrainedSide:
    release = open_release(model)
    assert release.info.model == swarm_model(regime, setup), "another swarm's release lies there"
    experts = [release.experts(k) for k in range(setup.num_experts)]
    for expert in experts:
        expert.eval()
    _, cluster_of_place = partition_of(data, setup, seed=plan.seed)
    return TrainedSide(
        experts, release.router.eval(), cluster_of_place, _spent(regime, setup, plan)
    )


def _spent(regime: Regime, setup: Setup, plan: SwarmPlan) -> Spent:
    """What went into the release: every version of an expert is one accepted segment. Lost work is the churn's."""
    budget = budget_of(regime, setup)
    steps = plan.versions * (budget.expert_steps // plan.versions)
    return replace(budget, experts=budget.experts * steps / budget.expert_steps, expert_steps=steps)
