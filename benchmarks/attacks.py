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

import msgspec
import torch
from msgspec import Struct, structs
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
LEARNING_RATE_SHARE = 0.25
"""Of the preset's, which is made for the first minute of training: a segment of a few steps would be mostly noise."""
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
        recipe = structs.replace(
            model.recipe, learning_rate=model.recipe.learning_rate * LEARNING_RATE_SHARE
        )
        model = structs.replace(model, recipe=recipe)
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


class Trial(Struct, frozen=True, kw_only=True):
    """One contribution, as the checks saw it."""

    name: str
    seed: int
    refused_by_size: bool
    refused_by_loss: bool
    convicted: bool
    """By an audit: it lies too far from an honest run; of an honest one, from two that agree."""
    doubted: bool
    distance: float
    size: float
    own_score: float | None
    cluster_score: float | None

    @property
    def refused(self) -> bool:
        return self.refused_by_size or self.refused_by_loss


def line_of(trials: list[Trial]) -> dict[str, object]:
    """What became of one kind of contributor."""
    count = len(trials)
    ordered = sorted(trial.distance for trial in trials)
    own = sorted(trial.own_score for trial in trials if trial.own_score is not None)

    def rate(hits: int) -> dict[str, object]:
        return {"hits": hits, "between": [round(bound, 5) for bound in bounds(hits, count)]}

    return {
        "trials": count,
        "caught_with_audit": rate(sum(trial.refused or trial.convicted for trial in trials)),
        "by_size": sum(trial.refused_by_size for trial in trials),
        "by_loss": sum(trial.refused_by_loss for trial in trials),
        "by_audit": sum(trial.convicted for trial in trials),
        "doubted": rate(sum(trial.doubted and not trial.refused for trial in trials)),
        "caught_where_chance_chose_no_audit": rate(
            sum(trial.refused or (trial.doubted and trial.convicted) for trial in trials)
        ),
        "distance_least_median_most": [
            round(value, 4) for value in (ordered[0], ordered[count // 2], ordered[-1])
        ],
        "own_score_median": round(own[len(own) // 2], 2) if own else None,
    }


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

    def remember(self, trial: Trial) -> None:
        """What an accepted honest contribution shows."""
        if trial.name != "honest":
            return
        self.sizes.append(trial.size)
        if trial.own_score is not None:
            self.own.append(trial.own_score)
        if trial.cluster_score is not None:
            self.cluster.append(trial.cluster_score)


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


def bounds(hits: int, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's interval for a rate, 95 %."""
    low = float(beta.ppf(0.025, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


@dataclass(kw_only=True)
class Trials:
    """Runs in the two rooms, and checks here. Every trial is a line of `kept`, so that a long measurement goes on."""

    rooms: list[ProcessPoolExecutor]
    checks: Checks
    kept: Path
    done: list[Trial]

    def start(self, name: str, seed: int, chance: Random, place: int) -> "Future[bytes]":
        return self.rooms[place].submit(Room.work, name, seed, Machine.some(chance))

    def all(self, name: str, seeds: range) -> None:
        """Trials of one kind that are not done yet; the auditor is honest and on another machine."""
        done = {trial.seed for trial in self.done if trial.name == name}
        waiting, started = deque[tuple[int, list[Future[bytes]]]](), time.monotonic()
        for seed in (seed for seed in seeds if seed not in done):
            chance = Random(seed)
            first = self.start(name, seed, chance, seed % 2)
            second = self.start("honest", seed, chance, 1 - seed % 2)
            waiting.append((seed, [first, second]))
            if len(waiting) > 3:
                self._finish(name, *waiting.popleft())
        for seed, runs in waiting:
            self._finish(name, seed, runs)
        print(f"{name} {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    def _finish(self, name: str, seed: int, runs: "list[Future[bytes]]") -> None:
        trial = self._one(name, seed, runs)
        self.done.append(trial)
        self.checks.remember(trial)
        with self.kept.open("ab") as file:
            file.write(msgspec.json.encode(trial) + b"\n")

    def _one(self, name: str, seed: int, runs: "list[Future[bytes]]") -> Trial:
        checks, limit = self.checks, self.checks.policy.audit_distance
        delta, other = (checks.delta(run.result()) for run in runs)
        judgement = checks.judgement(delta, seed)
        size = size_of(delta.norm(), checks.plan.steps)
        apart = apartness(delta, other).distance
        convicted = apart > limit
        if convicted and name == "honest":
            third = checks.delta(self.start(name, seed, Random(seed + 1), seed % 2).result())
            convicted = apartness(other, third).distance <= limit < apartness(delta, third).distance
        return Trial(
            name=name,
            seed=seed,
            refused_by_size=bool(outside_band(size, list(checks.sizes))),
            refused_by_loss=is_worse(judgement, checks.policy),
            convicted=convicted,
            doubted=bool(doubts.doubt(judgement, list(checks.own), list(checks.cluster))),
            distance=apart,
            size=size,
            own_score=doubts.own_score(judgement),
            cluster_score=doubts.cluster_score(judgement),
        )


def judged_today(trial: Trial, policy: Policy) -> Trial:
    """A kept trial of an attack under today's charter. Whether an honest one was accused took a third run to say."""
    if trial.name == "honest":
        return trial
    return structs.replace(trial, convicted=trial.distance > policy.audit_distance)


def read_trials(kept: Path) -> list[Trial]:
    """What an earlier run did; a last line that was cut off is done again."""
    found = []
    for line in kept.read_bytes().splitlines() if kept.exists() else []:
        try:
            found.append(msgspec.json.decode(line, type=Trial))
        except msgspec.DecodeError:
            break
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=64, help="of the held-out test")
    parser.add_argument("--probes", type=int, default=48, help="of the looks that open audits")
    parser.add_argument("--honest", type=int, default=3000)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--kept", type=Path, default=Path("attacks.jsonl"), help="trials so far")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    plan = Plan(data=str(arguments.data), preset=arguments.preset, steps=arguments.steps)
    with tempfile.TemporaryDirectory() as folder:
        trials = opened(arguments, plan, Path(folder))
        trials.all("honest", range(1, arguments.honest + 1))
        for name in HOSTILE_TRAINING:
            trials.all(name, range(10_001, 10_001 + arguments.trials))
        for pool in trials.rooms:
            pool.shutdown()
    text = report(arguments, trials.done)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


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
    trials = Trials(
        rooms=[room(each, plan, path) for each in INSTRUCTIONS],
        checks=checks,
        kept=arguments.kept,
        done=[judged_today(trial, checks.policy) for trial in read_trials(arguments.kept)],
    )
    for trial in trials.done:
        checks.remember(trial)
    return trials


def report(arguments: argparse.Namespace, trials: list[Trial]) -> str:
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
    for name in ("honest", *HOSTILE_TRAINING):
        of_kind = [trial for trial in trials if trial.name == name]
        if of_kind:
            head.append(f"{name}: {json.dumps(line_of(of_kind))}")
    return "\n".join(head)


if __name__ == "__main__":
    main()
