"""What delta codecs cost and save: held-out loss and bytes over versions, beside uncompressed deltas; and codec speed.

    kinoswarm data render CLIPS && kinoswarm data prepare CLIPS DATA
    python benchmarks/delta.py curve DATA [--preset demo] [--versions 10] [--steps 100] [--contributors 1] [--rows ...]
    python benchmarks/delta.py speed [--megabytes 128] [--rounds 5]

curve: every row trains the first cluster's expert from one common seed, with equal data, noise and steps; a version is
the merge of what its contributors sent. What a contribution leaves out is lost; with "+ef" it joins the next one (error
feedback; "+ef0.5": half of it does), with "+carry" the contributor also trains on from it, so that it is not learnt
twice.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from kinoswarm_model.checkpoints import weights_of
from kinoswarm_model.data.data_manifest import read_manifest
from kinoswarm_model.delta import Delta, decode_delta, encode_delta, with_residual
from kinoswarm_model.delta_codecs import CODECS, INT8, Codec
from kinoswarm_model.experts import build_expert
from kinoswarm_model.jobs import TrainJob
from kinoswarm_model.merge import Contribution, OuterSettings, merge
from kinoswarm_model.paired_loss import Triples, losses_of_weights
from kinoswarm_model.presets import preset
from kinoswarm_model.segment import batch_plan, expert_trainer
from kinoswarm_model.training_data import ClipSet, prefetched
from kinoswarm_protocol.charter import Policy
from kinoswarm_protocol.specs import ModelSpec

Weights = dict[str, Tensor]
SEED_STEPS = 200
PAIRS = 256


class Exact(Delta):
    """An uncompressed delta, for the row that all others are held to."""

    def __init__(self, difference: Mapping[str, Tensor]) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in difference.items()}
        super().__init__(INT8, {}, torch.zeros(0), {}, shapes)
        object.__setattr__(self, "difference", difference)

    def tensor(self, name: str) -> Tensor:
        found: Tensor = self.__dict__["difference"][name]
        return found


class Sender:
    """One contributor's coding, with its residual when there is one."""

    def __init__(self, codec: Codec | None, memory: str) -> None:
        self.codec, self.memory = codec, memory
        self.share = float(memory[2:] or 1) if memory.startswith("ef") else 0.0
        """Of what was left out that joins the next one."""
        self.residual: Weights | None = None
        self.bytes_sent = 0

    def start(self, base: Weights) -> Weights:
        """What the contributor trains from."""
        if self.memory != "carry" or self.residual is None:
            return base
        return {name: base[name] + self.residual[name] for name in base}

    def send(self, base: Weights, new: Weights) -> Delta:
        """What arrives of the training from `start` to `new`."""
        difference = {name: new[name] - base[name] for name in base}
        if self.codec is None:
            self.bytes_sent += sum(4 * tensor.numel() for tensor in base.values())
            return Exact(difference)
        before = self.residual or {name: torch.zeros_like(tensor) for name, tensor in base.items()}
        joining = {name: self.share * tensor for name, tensor in before.items()}
        raw, left = with_residual(difference, joining, self.codec)
        self.residual = left if self.memory else None
        self.bytes_sent += len(raw)
        return decode_delta(raw, {name: tuple(tensor.shape) for name, tensor in base.items()})


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all rows share."""

    model: ModelSpec
    policy: Policy
    shards: list[str]
    heldout: str
    versions: int
    steps: int
    contributors: int

    def job(self, seed: int, steps: int) -> TrainJob:
        return TrainJob(
            job_id="bench",
            model=self.model,
            work_dir="",
            shard_paths=self.shards,
            steps=steps,
            batch_size=self.model.recipe.batch_size,
            seed=seed,
        )

    def trained(self, weights: Weights | None, seed: int, steps: int) -> Weights:
        """Weights after `steps` from `weights` (None: from the model's start)."""
        job = self.job(seed, steps)
        expert = build_expert(self.model, seed=0)
        if weights is not None:
            expert.network.load_state_dict(weights)
        trainer = expert_trainer(expert, job)
        clips = ClipSet.read(self.shards, self.model)
        for batch in prefetched(clips, batch_plan(job), range(steps)):
            trainer.train_step(batch)
        return weights_of(expert.network)

    def loss(self, weights: Weights) -> float:
        triples = Triples(ClipSet.read([self.heldout], self.model), PAIRS, 0)
        expert = build_expert(self.model, seed=0)
        losses = losses_of_weights(expert, weights, triples, torch.device("cpu"), self.model)
        return float(losses.mean())


@dataclass(frozen=True)
class Row:
    """A codec's curve."""

    name: str
    losses: list[float]
    bytes_per_contribution: float


def curve(bench: Bench, base: Weights, name: str) -> Row:
    """Train, send and merge `versions` times under one codec."""
    codec_name, _, memory = name.partition("+")
    codec = None if codec_name == "fp32" else CODECS[f"{codec_name}.1"]
    senders = [Sender(codec, memory) for _ in range(bench.contributors)]
    settings = OuterSettings(
        rate=bench.policy.outer_rate,
        momentum=bench.policy.outer_momentum,
        norm_clip=bench.policy.norm_clip,
    )
    momentum: Weights | None = None
    losses = [bench.loss(base)]
    for version in range(bench.versions):
        sent = [
            sender.send(
                base, bench.trained(sender.start(base), 1 + version * 64 + number, bench.steps)
            )
            for number, sender in enumerate(senders)
        ]
        entries = [Contribution(key=str(i), weight=1.0, delta=d) for i, d in enumerate(sent)]
        merged = merge(base, entries, settings, momentum)
        base, momentum = merged.weights, merged.momentum
        losses.append(bench.loss(base))
    count = bench.versions * bench.contributors
    return Row(name, losses, sum(sender.bytes_sent for sender in senders) / count)


def run_curve(arguments: argparse.Namespace) -> None:
    manifest = read_manifest(arguments.data)
    clip, cluster = manifest.clip, manifest.clusters[0]
    chosen = preset(
        arguments.preset, frames=clip.frames, height=clip.height, width=clip.width, num_clusters=1
    )
    bench = Bench(
        model=chosen.model,
        policy=chosen.policy,
        shards=[str(arguments.data / shard.path) for shard in cluster.shards],
        heldout=str(arguments.data / cluster.heldout.path),
        versions=arguments.versions,
        steps=arguments.steps,
        contributors=arguments.contributors,
    )
    base = bench.trained(None, 0, SEED_STEPS)
    whole = sum(4 * tensor.numel() for tensor in base.values())
    print(f"{whole / 4e6:.2f} million weights; {arguments.contributors} contributor(s) a version")
    rows = []
    for name in arguments.rows:
        rows.append(curve(bench, base, name))
        print(told(rows[-1], rows[0], whole), flush=True)
    if arguments.out:
        found = [
            {"row": r.name, "losses": r.losses, "bytes": r.bytes_per_contribution} for r in rows
        ]
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")


def told(row: Row, exact: Row, whole: int) -> str:
    ratio = whole / row.bytes_per_contribution
    worse = 100 * (row.losses[-1] / exact.losses[-1] - 1)
    losses = " ".join(f"{loss:.5f}" for loss in row.losses)
    return f"{row.name:10} {ratio:6.1f}x smaller, loss {worse:+.2f} % of {exact.name}: {losses}"


def run_speed(arguments: argparse.Namespace) -> None:
    """MB of float32 a second, each way, beside a plain copy of the same numbers; in turns, CPU time."""
    count = arguments.megabytes * 250_000 // 4096
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(count, 1, generator=generator).square()
    new = {"w": torch.randn(count, 4096, generator=generator) * spread}
    base = {"w": torch.zeros(count, 4096)}
    shapes = {"w": (count, 4096)}
    for name, codec in CODECS.items():
        raw = encode_delta(base, new, codec)
        ways: dict[str, Callable[[], object]] = {
            "copy": new["w"].clone,
            "encode": lambda codec=codec: encode_delta(base, new, codec),
            "decode": lambda raw=raw: decode_delta(raw, shapes).tensor("w"),
        }
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(arguments.rounds):
            for way, act in ways.items():
                started = time.process_time()
                act()
                speeds[way].append(count * 4096 * 4e-6 / (time.process_time() - started))
        middle = {way: median(found) for way, found in speeds.items()}
        print(
            f"{name:10} {count * 4096 * 4 / len(raw):6.1f}x smaller; encode {middle['encode']:.0f} MB/s, "
            f"decode {middle['decode']:.0f} MB/s of float32 on one core (a copy: {middle['copy']:.0f} MB/s)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("curve")
    one.add_argument("data", type=Path)
    one.add_argument("--preset", default="demo")
    one.add_argument("--versions", type=int, default=10)
    one.add_argument("--steps", type=int, default=100)
    one.add_argument("--contributors", type=int, default=1)
    rows = ["fp32", "int8", "int4", "int4+ef", "sparse", "sparse+ef", "sparse+carry"]
    one.add_argument(
        "--rows", nargs="+", default=rows, help="the first one is what others are held to"
    )
    one.add_argument("--out", type=Path, help="write the curves as JSON")
    one.set_defaults(run=run_curve)
    other = kinds.add_parser("speed")
    other.add_argument("--megabytes", type=int, default=128)
    other.add_argument("--rounds", type=int, default=5)
    other.set_defaults(run=run_speed)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    print(f"command: python {' '.join(sys.argv)}")
    python = platform.python_version()
    print(
        f"machine: Linux {platform.machine()}, {os.cpu_count()} cores, Python {python}, torch {torch.__version__}"
    )
    arguments.run(arguments)


if __name__ == "__main__":
    main()
