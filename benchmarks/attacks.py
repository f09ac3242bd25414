"""How often hostile training is caught, and how often honest training is accused: real training, real checks.

    kinoswarm data render CLIPS && kinoswarm data prepare CLIPS DATA
    python -m benchmarks.attacks DATA [--preset tiny] [--steps 30] [--honest 3000] [--trials 200] [--out FILE]

Every trial is a work order of its own. Its contributor trains honestly or attacks; then the checks of a swarm look at
what came: the size of the delta against those accepted lately, the paired held-out loss, and an audit, that is the
distance to an honest run of the same order on another machine. Machines differ in micro-batch, threads, kernels (oneDNN
on or off) and arithmetic (float32, or bfloat16 products). An honest contributor is accused when a check refuses its
delta, or when two runs of others agree with each other and not with it. Bounds: Clopper and Pearson (1934), 95 %.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from unittest.mock import patch

import torch
from msgspec import structs
from scipy.stats import beta
from torch import Tensor

from kinoswarm_coordinator.norm_band import KEPT, outside_band, size_of
from kinoswarm_coordinator.verdicts import is_worse
from kinoswarm_model.checkpoints import weights_of, write_checkpoint
from kinoswarm_model.compare_job import apartness
from kinoswarm_model.data.data_manifest import DataManifest, read_manifest
from kinoswarm_model.delta import Delta, applied, decode_delta, encode_delta
from kinoswarm_model.delta_codecs import CODECS
from kinoswarm_model.experts import build_expert
from kinoswarm_model.home_presets import home_policy
from kinoswarm_model.jobs import TrainJob
from kinoswarm_model.paired_loss import Triples, losses_of_weights, paired
from kinoswarm_model.presets import preset
from kinoswarm_model.segment import batch_plan, expert_trainer, starting_point
from kinoswarm_model.training_data import ClipSet, prefetched
from kinoswarm_protocol.charter import Policy
from kinoswarm_protocol.messages import DeltaJudgement
from kinoswarm_protocol.specs import ModelSpec

Weights = dict[str, Tensor]
SEED_STEPS = 200
MICRO_BATCHES = (0, 1, 2, 4)


@dataclass(frozen=True)
class Machine:
    """What differs between honest machines."""

    micro_batch: int
    threads: int
    onednn: bool
    bfloat16: bool

    @contextmanager
    def computing(self) -> Iterator[None]:
        """This process computes as this machine would."""
        product = torch.bfloat16 if self.bfloat16 else torch.float32
        torch.set_num_threads(self.threads)
        with (
            torch.backends.mkldnn.flags(enabled=self.onednn),
            patch("kinoswarm_model.training.training_dtype", lambda device, wanted: product),
        ):
            yield
        torch.set_num_threads(1)


def some_machine(chance: Random) -> Machine:
    return Machine(
        chance.choice(MICRO_BATCHES),
        chance.choice((1, 2)),
        chance.random() < 0.5,
        chance.random() < 0.3,
    )


@dataclass(frozen=True, kw_only=True)
class Swarm:
    """What all trials share."""

    model: ModelSpec
    policy: Policy
    base_path: str
    base: Weights
    clips: ClipSet
    foreign: ClipSet
    heldout: ClipSet
    steps: int

    def trained(
        self, seed: int, machine: Machine, steps: int = 0, clips: ClipSet | None = None
    ) -> Weights:
        """The weights after a segment, whole or cut short."""
        job = TrainJob(
            job_id="attack",
            model=self.model,
            work_dir="",
            shard_paths=[],
            steps=self.steps,
            batch_size=self.model.recipe.batch_size,
            seed=seed,
            base_path=self.base_path,
            micro_batch=machine.micro_batch,
        )
        expert, _ = starting_point(job)
        with machine.computing():
            trainer = expert_trainer(expert, job)
            batches = prefetched(clips or self.clips, batch_plan(job), range(steps or self.steps))
            for batch in batches:
                trainer.train_step(batch)
        return weights_of(expert.network)

    def packed(self, new: Weights) -> Delta:
        """What arrives of new weights."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.base.items()}
        return decode_delta(encode_delta(self.base, new, CODECS["int4.1"]), shapes)

    def worse(self, delta: Delta, seed: int) -> bool:
        """The verdict of the paired held-out test."""
        triples = Triples(self.heldout, self.policy.heldout_pairs, seed)
        expert = build_expert(self.model, seed=0)

        def losses(weights: Weights) -> Tensor:
            return losses_of_weights(expert, weights, triples, torch.device("cpu"), self.model)

        loss = paired(losses(self.base), losses(applied(self.base, delta)))
        judgement = DeltaJudgement(
            delta="0" * 64,
            code="accepted",
            problem="",
            norm=0.0,
            base_loss=loss.base,
            difference=loss.difference,
            standard_error=loss.standard_error,
        )
        return is_worse(judgement, self.policy)


Attack = Callable[[Swarm, int, Machine], Weights]


def _moved(swarm: Swarm, new: Weights, factor: float) -> Weights:
    return {name: swarm.base[name] + factor * (new[name] - swarm.base[name]) for name in new}


def _noisy(swarm: Swarm, new: Weights, seed: int, share: float) -> Weights:
    """New weights with noise of that share of the delta's size, tensor by tensor."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor
        + share
        * float((tensor - swarm.base[name]).double().square().mean().sqrt())
        * torch.randn(tensor.shape, generator=generator)
        for name, tensor in new.items()
    }


def random_delta(swarm: Swarm, seed: int, machine: Machine) -> Weights:
    """Noise of an honest delta's size."""
    new = swarm.trained(seed + 1, machine)
    return {
        name: swarm.base[name] + noise - tensor
        for (name, noise), tensor in zip(
            _noisy(swarm, new, seed, 1.0).items(), new.values(), strict=True
        )
    }


ATTACKS: dict[str, Attack] = {
    "random": random_delta,
    "zero": lambda swarm, seed, machine: dict(swarm.base),
    "sign-flipped": lambda swarm, seed, machine: _moved(swarm, swarm.trained(seed, machine), -1.0),
    "scaled tenfold": lambda swarm, seed, machine: _moved(
        swarm, swarm.trained(seed, machine), 10.0
    ),
    "scaled twofold": lambda swarm, seed, machine: _moved(swarm, swarm.trained(seed, machine), 2.0),
    "lazy, a tenth": lambda swarm, seed, machine: swarm.trained(
        seed, machine, max(1, swarm.steps // 10)
    ),
    "lazy, half": lambda swarm, seed, machine: swarm.trained(seed, machine, swarm.steps // 2),
    "lazy, scaled up": lambda swarm, seed, machine: _moved(
        swarm, swarm.trained(seed, machine, max(1, swarm.steps // 10)), 10.0**0.5
    ),
    "copied with noise": lambda swarm, seed, machine: _noisy(
        swarm, swarm.trained(seed + 1, machine), seed, 0.1
    ),
    "wrong cluster": lambda swarm, seed, machine: swarm.trained(seed, machine, 0, swarm.foreign),
}


@dataclass
class Tally:
    """Of one kind of contributor."""

    trials: int = 0
    by_size: int = 0
    by_loss: int = 0
    by_audit: int = 0
    caught: int = 0
    distances: list[float] = field(default_factory=list)

    def line(self) -> dict[str, object]:
        low, high = bounds(self.caught, self.trials)
        ordered = sorted(self.distances)
        return {
            "trials": self.trials,
            "caught": self.caught,
            "rate_low": round(low, 5),
            "rate_high": round(high, 5),
            "by_size": self.by_size,
            "by_loss": self.by_loss,
            "by_audit": self.by_audit,
            "distance_median": round(ordered[len(ordered) // 2], 4),
            "distance_least": round(ordered[0], 4),
            "distance_most": round(ordered[-1], 4),
        }


def bounds(hits: int, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's interval for a rate, 95 %."""
    low = float(beta.ppf(0.025, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def attacked(swarm: Swarm, attack: Attack, seed: int, sizes: list[float], tally: Tally) -> None:
    """One hostile contribution against the three checks; the auditor is honest and on another machine."""
    chance = Random(seed)
    hostile = swarm.packed(attack(swarm, seed, some_machine(chance)))
    honest = swarm.packed(swarm.trained(seed, some_machine(chance)))
    _count(swarm, tally, hostile, honest, sizes, seed)


def _count(
    swarm: Swarm, tally: Tally, delta: Delta, audit: Delta, sizes: list[float], seed: int
) -> None:
    size = bool(outside_band(size_of(delta.norm(), swarm.steps), sizes))
    loss = swarm.worse(delta, seed)
    apart = apartness(delta, audit).distance
    differs = apart > swarm.policy.audit_distance
    tally.trials += 1
    tally.by_size += size
    tally.by_loss += loss
    tally.by_audit += differs
    tally.caught += size or loss or differs
    tally.distances.append(apart)


def honest_trials(swarm: Swarm, count: int) -> tuple[Tally, list[float]]:
    """Honest contributors; an audit accuses when a third run agrees with the second and not with the first."""
    tally, sizes = Tally(), list[float]()
    for seed in range(1, count + 1):
        chance = Random(seed)
        one, other = (swarm.packed(swarm.trained(seed, some_machine(chance))) for _ in range(2))
        size = bool(outside_band(size_of(one.norm(), swarm.steps), sizes))
        sizes = [*sizes, size_of(one.norm(), swarm.steps)][-KEPT:]
        apart = apartness(one, other).distance
        accused = False
        if apart > swarm.policy.audit_distance:
            third = swarm.packed(swarm.trained(seed, some_machine(chance)))
            limit = swarm.policy.audit_distance
            accused = apartness(other, third).distance <= limit < apartness(one, third).distance
        loss = swarm.worse(one, seed)
        tally.trials += 1
        tally.by_size += size
        tally.by_loss += loss
        tally.by_audit += accused
        tally.caught += size or loss or accused
        tally.distances.append(apart)
        if seed % 50 == 0:
            print(f"  {seed} honest segments: {tally.line()}", file=sys.stderr, flush=True)
    return tally, sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=64, help="of the held-out test")
    parser.add_argument("--honest", type=int, default=3000)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        swarm = founded(arguments, read_manifest(arguments.data), Path(folder))
        honest, sizes = honest_trials(swarm, arguments.honest)
        found = {"honest": honest.line()}
        for name, attack in ATTACKS.items():
            tally = Tally()
            for seed in range(10_001, 10_001 + arguments.trials):
                attacked(swarm, attack, seed, sizes, tally)
            found[name] = tally.line()
            print(f"  {name}: {tally.line()}", file=sys.stderr, flush=True)
    print(report(arguments, found))
    if arguments.out:
        arguments.out.write_text(report(arguments, found) + "\n")


def founded(arguments: argparse.Namespace, manifest: DataManifest, folder: Path) -> Swarm:
    """A swarm's first expert after its common seed, with the policy of the home presets."""
    clip, (own, foreign) = manifest.clip, manifest.clusters[:2]
    chosen = preset(
        arguments.preset, frames=clip.frames, height=clip.height, width=clip.width, num_clusters=2
    )

    def clips(paths: list[str]) -> ClipSet:
        return ClipSet.read([str(arguments.data / path) for path in paths], chosen.model)

    shards = [shard.path for shard in own.shards]
    both = clips(shards + [shard.path for shard in foreign.shards])
    job = TrainJob(
        job_id="seed",
        model=chosen.model,
        work_dir="",
        shard_paths=[],
        steps=SEED_STEPS,
        batch_size=chosen.model.recipe.batch_size,
        seed=0,
    )
    expert = build_expert(chosen.model, seed=0)
    trainer = expert_trainer(expert, job)
    for batch in prefetched(both, batch_plan(job), range(SEED_STEPS)):
        trainer.train_step(batch)
    base = weights_of(expert.network)
    path = folder / "base.safetensors"
    write_checkpoint(path, base)
    return Swarm(
        model=chosen.model,
        policy=structs.replace(home_policy(), heldout_pairs=arguments.pairs),
        base_path=str(path),
        base=base,
        clips=clips(shards),
        foreign=clips([shard.path for shard in foreign.shards]),
        heldout=clips([own.heldout.path]),
        steps=arguments.steps,
    )


def report(arguments: argparse.Namespace, found: dict[str, dict[str, object]]) -> str:
    """A line of JSON per kind, with what made them."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    head = [
        f"command: python -m benchmarks.attacks {' '.join(sys.argv[1:])}",
        f"machine: Linux {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, commit {commit}",
        f"policy: an audit's distance at most {home_policy().audit_distance}, {arguments.pairs} held-out pairs; "
        f"preset {arguments.preset}, {arguments.steps} steps a segment",
    ]
    return "\n".join([*head, *(f"{name}: {json.dumps(line)}" for name, line in found.items())])


if __name__ == "__main__":
    main()
