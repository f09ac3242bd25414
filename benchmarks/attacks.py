"""How often hostile training is caught, and how often honest training is accused: real training, real checks.

    kinoswarm data render CLIPS && kinoswarm data prepare CLIPS DATA
    python -m benchmarks.attacks DATA [--preset tiny] [--steps 8] [--honest 3000] [--trials 200] [--out FILE]

Every trial is a work order of its own. Its contributor trains honestly or attacks; then the checks of a swarm look at
what came: the size of the delta against those accepted lately, the paired held-out loss, and an audit, that is the
distance to an honest run of the same order on another machine. What passes these and yet did not learn what it was
assigned, or suits another cluster better, is doubted, which opens an audit (doubts.py). Machines differ in instruction
set (two processes: the processor's own, and the baseline without vector extensions), micro-batch, threads, kernels
(oneDNN on or off) and arithmetic (float32, or bfloat16 products). An honest contributor is accused when a check refuses
its delta, or when two runs of others agree with each other and not with it. Bounds: Clopper and Pearson (1934), 95 %.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from random import Random

import torch
from msgspec import structs
from scipy.stats import beta

from kinoswarm_coordinator import doubts
from kinoswarm_coordinator.norm_band import KEPT, outside_band, size_of
from kinoswarm_coordinator.verdicts import is_worse
from kinoswarm_model.checkpoints import weights_of
from kinoswarm_model.compare_job import apartness
from kinoswarm_model.data.data_manifest import read_manifest
from kinoswarm_model.data.shards import read_shard
from kinoswarm_model.delta import Delta, decode_delta, encode_delta
from kinoswarm_model.delta_codecs import CODECS
from kinoswarm_model.evaluate_job import Bench
from kinoswarm_model.experts import build_expert
from kinoswarm_model.home_presets import home_policy
from kinoswarm_model.jobs import AssignedSegment, DeltaReport, EvaluateJob, PairedLoss, TrainJob
from kinoswarm_model.paired_loss import Triples
from kinoswarm_model.presets import preset
from kinoswarm_model.segment import batch_plan, expert_trainer
from kinoswarm_model.training_data import ClipSet, prefetched
from kinoswarm_protocol.charter import Policy
from kinoswarm_protocol.messages import DeltaJudgement, LossShift, TrainOrder
from kinoswarm_protocol.specs import ModeSpec
from kinoswarm_simulator.workshop import (
    HOSTILE_TRAINING,
    Attack,
    Machine,
    Task,
    Weights,
    Workshop,
    honest,
)

SEED_STEPS = 100
CODEC = CODECS["int4.1"]
INSTRUCTIONS = (
    {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_WAIT_POLICY": "passive"},
    {"ATEN_CPU_CAPABILITY": "", "ONEDNN_MAX_CPU_ISA": "DEFAULT", "OMP_WAIT_POLICY": "passive"},
)
TOGETHER = 8
"""Contributions that one evaluation judges on the same triples."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every process needs to found the same swarm."""

    data: str
    preset: str
    steps: int

    def workshop(self) -> Workshop:
        manifest = read_manifest(Path(self.data))
        clip, clusters = manifest.clip, manifest.clusters[:2]
        model = preset(
            self.preset, frames=clip.frames, height=clip.height, width=clip.width, num_clusters=2
        ).model
        shards = [
            [read_shard(Path(self.data) / shard.path) for shard in entry.shards]
            for entry in clusters
        ]
        clips = [ClipSet(each, model) for each in shards]
        return Workshop(model=model, clips=clips, shards=shards)

    def heldout(self, workshop: Workshop, cluster: int) -> ClipSet:
        entry = read_manifest(Path(self.data)).clusters[cluster]
        return ClipSet.read([str(Path(self.data) / entry.heldout.path)], workshop.model)


def common_seed(workshop: Workshop) -> Weights:
    """Version 0 of every expert."""
    model = workshop.model
    both = ClipSet([shard for shards in workshop.shards for shard in shards], model)
    job = TrainJob(
        job_id="seed",
        model=model,
        work_dir="",
        shard_paths=[],
        steps=SEED_STEPS,
        batch_size=model.recipe.batch_size,
        seed=0,
    )
    expert = build_expert(model, seed=0)
    trainer = expert_trainer(expert, job)
    for batch in prefetched(both, batch_plan(job), range(SEED_STEPS)):
        trainer.train_step(batch)
    return weights_of(expert.network)


class Room:
    """Machines of one instruction set: a process of its own."""

    workshop: Workshop
    base: Weights
    steps: int

    @classmethod
    def open(cls, plan: Plan, base_path: str) -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        cls.workshop, cls.steps = plan.workshop(), plan.steps
        cls.base = read_weights(base_path)

    @classmethod
    def work(cls, name: str, seed: int, machine: Machine) -> bytes:
        """The bytes that this volunteer would send."""
        order = order_of(cls.workshop, cls.steps, seed)
        attack: Attack = HOSTILE_TRAINING.get(name, honest)
        new = attack(cls.workshop, Task(order=order, base=cls.base), machine)
        return encode_delta(cls.base, new, CODEC)


def read_weights(path: str) -> Weights:
    from safetensors.torch import load_file

    return load_file(path)


def order_of(workshop: Workshop, steps: int, seed: int) -> TrainOrder:
    return TrainOrder(
        cluster=0,
        lineage=0,
        base_version=0,
        base="0" * 64,
        mode=ModeSpec(name="full"),
        steps=steps,
        batch_size=workshop.model.recipe.batch_size,
        seed=seed,
    )


def room(instructions: dict[str, str], plan: Plan, base_path: str) -> ProcessPoolExecutor:
    """A process that computes with these instructions."""
    os.environ.update({name: value for name, value in instructions.items() if value})
    for name in [name for name, value in instructions.items() if not value]:
        os.environ.pop(name, None)
    pool = ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=Room.open, initargs=(plan, base_path)
    )
    pool.submit(os.getpid).result()  # it has started with this environment
    return pool


@dataclass(kw_only=True)
class Checks:
    """The checks of a swarm, with what they remember of accepted work."""

    plan: Plan
    policy: Policy
    workshop: Workshop
    base: Weights
    probes: int
    sizes: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    own: deque[float] = field(default_factory=lambda: deque(maxlen=doubts.KEPT))
    cluster: deque[float] = field(default_factory=lambda: deque(maxlen=doubts.KEPT))
    _bench: tuple[int, Bench] | None = None

    def __post_init__(self) -> None:
        self._heldout = [self.plan.heldout(self.workshop, cluster) for cluster in (0, 1)]
        self._expert = build_expert(self.workshop.model, seed=0)

    def delta(self, raw: bytes) -> Delta:
        return decode_delta(raw, {name: tuple(t.shape) for name, t in self.base.items()})

    def judgement(self, delta: Delta, seed: int) -> DeltaJudgement:
        """What an evaluation finds."""
        segment = AssignedSegment(
            seed=seed,
            steps=self.plan.steps,
            batch_size=self.workshop.model.recipe.batch_size,
        )
        report = self.bench(seed // TOGETHER).measured(delta, segment)
        return judged(report)

    def bench(self, chance: int) -> Bench:
        """The evaluator's, with the base's losses on triples of this chance."""
        if self._bench is not None and self._bench[0] == chance:
            return self._bench[1]
        model = self.workshop.model
        job = EvaluateJob(
            job_id="evaluate",
            model=model,
            work_dir="",
            base_path="",
            delta_paths=[],
            heldout_path="",
            pairs=self.policy.heldout_pairs,
            seed=chance,
            probes=self.probes,
        )
        own, foreign = (
            Triples(clips, pairs, chance)
            for clips, pairs in zip(
                self._heldout, (self.policy.heldout_pairs, self.probes), strict=True
            )
        )
        bench = Bench(
            job=job,
            expert=self._expert,
            base=self.base,
            own=own,
            foreign=foreign,
            clips=self.workshop.clips[0],
        )
        self._bench = (chance, bench)
        return bench

    def accepted(self, delta: Delta, judgement: DeltaJudgement) -> None:
        """Remember what an accepted contribution shows."""
        self.sizes.append(size_of(delta.norm(), self.plan.steps))
        for kept, score in (
            (self.own, doubts.own_score(judgement)),
            (self.cluster, doubts.cluster_score(judgement)),
        ):
            if score is not None:
                kept.append(score)


def judged(report: DeltaReport) -> DeltaJudgement:
    assert report.loss is not None
    return DeltaJudgement(
        delta="0" * 64,
        code=report.code,
        problem="",
        norm=report.norm,
        base_loss=report.loss.base,
        difference=report.loss.difference,
        standard_error=report.loss.standard_error,
        on_assigned=_shift(report.assigned),
        on_foreign=_shift(report.foreign),
    )


def _shift(loss: PairedLoss | None) -> LossShift | None:
    if loss is None:
        return None
    return LossShift(difference=loss.difference, standard_error=loss.standard_error)


@dataclass
class Tally:
    """Of one kind of contributor."""

    trials: int = 0
    by_size: int = 0
    by_loss: int = 0
    by_audit: int = 0
    caught: int = 0
    doubted: int = 0
    """Of what neither size nor loss refused."""
    caught_unaudited: int = 0
    """Of a proven account, where chance chose no audit."""
    distances: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)

    def add(self, size: bool, loss: bool, audit: bool, doubted: bool, distance: float) -> None:
        self.trials += 1
        self.by_size += size
        self.by_loss += loss
        self.by_audit += audit
        self.caught += size or loss or audit
        self.doubted += doubted and not (size or loss)
        self.caught_unaudited += size or loss or (doubted and audit)
        self.distances.append(distance)

    def line(self) -> dict[str, object]:
        ordered, own = sorted(self.distances), sorted(self.own)
        return {
            "trials": self.trials,
            "caught": self.caught,
            "caught_between": [round(bound, 5) for bound in bounds(self.caught, self.trials)],
            "by_size": self.by_size,
            "by_loss": self.by_loss,
            "by_audit": self.by_audit,
            "doubted": self.doubted,
            "doubted_between": [round(bound, 5) for bound in bounds(self.doubted, self.trials)],
            "caught_without_chosen_audit": self.caught_unaudited,
            "caught_without_chosen_audit_between": [
                round(bound, 5) for bound in bounds(self.caught_unaudited, self.trials)
            ],
            "distance_least_median_most": [
                round(value, 4) for value in (ordered[0], ordered[len(ordered) // 2], ordered[-1])
            ],
            "own_score_median": round(own[len(own) // 2], 2) if own else None,
        }


def bounds(hits: int, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's interval for a rate, 95 %."""
    low = float(beta.ppf(0.025, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


@dataclass(kw_only=True)
class Trials:
    """Runs in the two rooms, and checks here."""

    rooms: list[ProcessPoolExecutor]
    checks: Checks

    def start(self, name: str, seed: int, chance: Random, place: int) -> "Future[bytes]":
        return self.rooms[place].submit(Room.work, name, seed, Machine.some(chance))

    def one(self, name: str, seed: int, runs: "list[Future[bytes]]", tally: Tally) -> None:
        checks, limit = self.checks, self.checks.policy.audit_distance
        delta, other = (checks.delta(run.result()) for run in runs)
        judgement = checks.judgement(delta, seed)
        size = bool(outside_band(size_of(delta.norm(), checks.plan.steps), list(checks.sizes)))
        loss = is_worse(judgement, checks.policy)
        why = doubts.doubt(judgement, list(checks.own), list(checks.cluster))
        apart = apartness(delta, other).distance
        audit = apart > limit
        if audit and name == "honest":
            chance = Random(seed + 1)
            third = checks.delta(self.start(name, seed, chance, seed % 2).result())
            audit = apartness(other, third).distance <= limit < apartness(delta, third).distance
        tally.add(size, loss, audit, bool(why), apart)
        score = doubts.own_score(judgement)
        if score is not None and math.isfinite(score):
            tally.own.append(score)
        if name == "honest":
            checks.accepted(delta, judgement)

    def all(self, name: str, seeds: range) -> Tally:
        """Trials of one kind; the auditor is honest and on another machine."""
        tally, waiting = Tally(), deque[tuple[int, list[Future[bytes]]]]()
        started = time.monotonic()
        for seed in seeds:
            chance = Random(seed)
            first = self.start(name, seed, chance, seed % 2)
            second = self.start("honest", seed, chance, 1 - seed % 2)
            waiting.append((seed, [first, second]))
            if len(waiting) > 3:
                self.one(name, *waiting.popleft(), tally)
            if tally.trials % 25 == 24:
                took = time.monotonic() - started
                print(f"  {name} {took:.0f} s: {tally.line()}", file=sys.stderr, flush=True)
        for seed, runs in waiting:
            self.one(name, seed, runs, tally)
        print(f"  {name}: {tally.line()}", file=sys.stderr, flush=True)
        return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=64, help="of the held-out test")
    parser.add_argument("--probes", type=int, default=48, help="of the looks that open audits")
    parser.add_argument("--honest", type=int, default=3000)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    plan = Plan(data=str(arguments.data), preset=arguments.preset, steps=arguments.steps)
    with tempfile.TemporaryDirectory() as folder:
        trials = opened(arguments, plan, Path(folder))
        found = {"honest": trials.all("honest", range(1, arguments.honest + 1)).line()}
        for name in HOSTILE_TRAINING:
            seeds = range(10_001, 10_001 + arguments.trials)
            found[name] = trials.all(name, seeds).line()
        for pool in trials.rooms:
            pool.shutdown()
    print(report(arguments, found))
    if arguments.out:
        arguments.out.write_text(report(arguments, found) + "\n")


def opened(arguments: argparse.Namespace, plan: Plan, folder: Path) -> Trials:
    """A swarm's first expert after its common seed, with the policy of the home presets."""
    from safetensors.torch import save_file

    workshop = plan.workshop()
    base = common_seed(workshop)
    path = str(folder / "base.safetensors")
    save_file(base, path)
    checks = Checks(
        plan=plan,
        policy=structs.replace(home_policy(), heldout_pairs=arguments.pairs),
        workshop=workshop,
        base=base,
        probes=arguments.probes,
    )
    return Trials(rooms=[room(each, plan, path) for each in INSTRUCTIONS], checks=checks)


def report(arguments: argparse.Namespace, found: dict[str, dict[str, object]]) -> str:
    """A line of JSON per kind, with what made them."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    head = [
        f"command: python -m benchmarks.attacks {' '.join(sys.argv[1:])}",
        f"machine: Linux {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, commit {commit}",
        f"policy: an audit's distance at most {home_policy().audit_distance}, {arguments.pairs} held-out pairs, "
        f"{arguments.probes} probes; preset {arguments.preset}, {arguments.steps} steps a segment",
    ]
    return "\n".join([*head, *(f"{name}: {json.dumps(line)}" for name, line in found.items())])


if __name__ == "__main__":
    main()
