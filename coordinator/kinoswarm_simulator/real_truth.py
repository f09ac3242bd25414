"""Outcomes of leases by real training, checking and merging, for a small swarm in virtual time. Owns its files.

Everything between a train order and a version is what a swarm does: volunteers train or attack (workshop.py), the
operator's jobs evaluate, compare and merge. Routers and releases are made up: an attack reaches them through versions.
"""

import asyncio
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from statistics import fmean

import torch
import zstandard
from msgspec import structs
from safetensors.torch import load, save

from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.operator_jobs import Workbench
from kinoswarm_coordinator.state import Rules, SwarmState, VersionState
from kinoswarm_model.checkpoints import read_checkpoint, weights_of, write_checkpoint
from kinoswarm_model.data.data_manifest import read_manifest
from kinoswarm_model.data.shards import read_shard
from kinoswarm_model.delta import encode_delta, read_delta
from kinoswarm_model.delta_codecs import codec_of
from kinoswarm_model.experts import build_expert, tensor_shapes
from kinoswarm_model.jobs import TrainJob
from kinoswarm_model.paired_loss import Triples, losses_of_weights
from kinoswarm_model.presets import preset
from kinoswarm_model.segment import batch_plan, expert_trainer
from kinoswarm_model.training_data import ClipSet, prefetched
from kinoswarm_model.worker_jobs import compute
from kinoswarm_protocol.errors import RemoteError
from kinoswarm_protocol.ids import BlobId, sha256_hex
from kinoswarm_protocol.messages import (
    CompareOrder,
    EvaluateOrder,
    Lease,
    MergeOrder,
    Outcome,
    TrainOrder,
    TrainOutcome,
)
from kinoswarm_simulator.behaviours import Work
from kinoswarm_simulator.plan import Plan, rules_of
from kinoswarm_simulator.synthetic import Truth
from kinoswarm_simulator.workshop import HOSTILE_TRAINING, Machine, Task, Workshop, honest

_LOSS_TRIPLES = 512


@dataclass
class Shelf:
    """Blobs by the hash of their bytes, with the three calls that the operator's jobs need of a network."""

    folder: Path
    paths: dict[BlobId, Path] = field(default_factory=dict)

    def put(self, raw: bytes) -> BlobId:
        """Keep bytes."""
        blob = BlobId(sha256_hex(raw))
        if blob not in self.paths:
            self.paths[blob] = self.folder / blob
            self.paths[blob].write_bytes(raw)
        return blob

    async def add_blob(self, path: Path) -> BlobId:
        """Keep a file."""
        return self.put(path.read_bytes())

    async def blob_path(self, blob: BlobId) -> Path | None:
        """Where it lies."""
        return self.paths.get(blob)

    async def pin(self, blob: BlobId) -> None:
        """Nothing is ever dropped here."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a real small swarm trains."""

    data: Path
    """Made by `kinoswarm data prepare`."""
    preset: str = "tiny"
    steps: int = 12
    """Of every segment."""
    quorum: int = 6
    """Segments of a version."""
    seed_steps: int = 60
    learning_rate_share: float = 0.25
    """Of the preset's, which is made for the first minute of training."""


_DONE_FOR_REAL = (EvaluateOrder, CompareOrder, MergeOrder, TrainOrder)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A version that no rollback took away."""

    checkpoint: BlobId
    segments: int
    """Merged from the seed up to here."""


def merged_segments(line: list[VersionState]) -> list[Standing]:
    """The versions of a lineage that stand, oldest first; a rollback takes away what lies above its content."""
    standing: list[Standing] = []
    for version in line:
        if version.position < len(standing):
            del standing[version.position + 1 :]
            continue
        before = standing[-1].segments if standing else 0
        standing.append(
            Standing(checkpoint=version.checkpoint, segments=before + len(version.contributions))
        )
    return standing


def is_trained(state: SwarmState, segments: int) -> bool:
    """Whether every expert holds so many."""
    return all(merged_segments(line)[-1].segments >= segments for line in state.versions.values())


class RealTruth(Truth):
    """What each delta does is measured."""

    def __init__(self, plan: Plan, course: Course, folder: Path) -> None:
        super().__init__()
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        self.course = course
        self.shelf = Shelf(folder / "blobs")
        self.shelf.folder.mkdir(parents=True)
        self._home = SwarmFolder(folder / "swarm")
        self._latest: BlobId | None = None
        self._chance = Random(plan.seed)  # noqa: S311  a run must be repeatable
        manifest = read_manifest(course.data)
        clip = manifest.clip
        chosen = preset(
            course.preset,
            frames=clip.frames,
            height=clip.height,
            width=clip.width,
            num_clusters=plan.num_clusters,
        )
        recipe = structs.replace(
            chosen.model.recipe,
            learning_rate=chosen.model.recipe.learning_rate * course.learning_rate_share,
        )
        model = structs.replace(chosen.model, recipe=recipe)
        entries = manifest.clusters[: plan.num_clusters]
        shards = [[read_shard(course.data / shard.path) for shard in e.shards] for e in entries]
        self.workshop = Workshop(
            model=model, clips=[ClipSet(each, model) for each in shards], shards=shards
        )
        for index, entry in enumerate(entries):
            target = self._home.heldout(index)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(course.data / entry.heldout.path, target)
        blobs = [
            [self.shelf.put((course.data / shard.path).read_bytes()) for shard in entry.shards]
            for entry in entries
        ]
        self.rules = self._rules(plan, blobs, self._common_seed())
        self._bench = Workbench(
            folder=self._home,
            rules=self.rules,
            network=self.shelf,  # type: ignore[arg-type]
            threads=1,
            device="cpu",
            credited_flops=lambda: 0.0,
        )

    def trained(self, lease: Lease, work: Work, seconds: float) -> TrainOutcome:
        """What a volunteer hands in."""
        order = lease.order
        assert isinstance(order, TrainOrder)
        delta = self.shelf.put(self._made(order, work))
        self.by_delta[delta] = work
        self._latest = delta
        return TrainOutcome(
            delta=delta,
            delta_bytes=self.shelf.paths[delta].stat().st_size,
            samples=order.steps * order.batch_size,
            steps=order.steps,
            loss_first=0.0,
            loss_last=0.0,
            delta_norm=1.0,
            seconds=seconds,
            flops=0.0,
        )

    def checked(self, rules: Rules, lease: Lease, chance: Random) -> Outcome:
        """What the operator's worker finds."""
        if not isinstance(lease.order, _DONE_FOR_REAL):
            return super().checked(rules, lease, chance)
        job = asyncio.run(self._bench.job_of(lease))
        done = compute(job, lambda progress: None)
        return asyncio.run(self._bench.outcome_of(lease, done))

    def heldout_loss(self, state: SwarmState, segments: int) -> float:
        """Mean over the clusters at so many merged segments, on equal triples for every run.

        Linear between the last version below that and the first above. Raises ValueError where there is none.
        """
        clusters = range(len(self.rules.charter.clusters))
        return fmean(self._loss_at(state, cluster, segments) for cluster in clusters)

    def _loss_at(self, state: SwarmState, cluster: int, segments: int) -> float:
        standing = merged_segments(state.versions[cluster, 0])
        above = next((each for each in standing if each.segments >= segments), None)
        if above is None:
            raise ValueError(f"no version of expert {cluster} holds {segments} segments")
        if above.segments == segments:
            return self._loss(above, cluster)
        below = standing[standing.index(above) - 1]
        share = (segments - below.segments) / (above.segments - below.segments)
        return (1.0 - share) * self._loss(below, cluster) + share * self._loss(above, cluster)

    def _loss(self, standing: Standing, cluster: int) -> float:
        model = self.workshop.model
        clips = ClipSet.read([str(self._home.heldout(cluster))], model)
        weights = read_checkpoint(self.shelf.paths[standing.checkpoint], tensor_shapes(model))
        losses = losses_of_weights(
            build_expert(model, seed=0),
            weights,
            Triples(clips, _LOSS_TRIPLES, seed=1),
            torch.device("cpu"),
            model,
        )
        return float(losses.mean())

    def _made(self, order: TrainOrder, work: Work) -> bytes:
        base = read_checkpoint(
            self.shelf.paths[BlobId(order.base)], tensor_shapes(self.workshop.model)
        )
        task = Task(order=order, base=base)
        match work.trick:
            case "malformed":
                return self._chance.randbytes(20_000)
            case "not a number":
                return damaged(self._honest(task))
            case "copied" if self._latest is not None:
                return self.shelf.paths[self._latest].read_bytes()
            case _:
                attack = HOSTILE_TRAINING.get(work.trick, honest)
                new = attack(self.workshop, task, Machine.some(self._chance))
                return encode_delta(base, new, codec_of(self.rules.charter.policy.delta_codec))

    def _honest(self, task: Task) -> bytes:
        new = self.workshop.trained(task, Machine())
        return encode_delta(task.base, new, codec_of(self.rules.charter.policy.delta_codec))

    def is_readable(self, delta: BlobId) -> bool:
        """Whether the checks of files and tensors let it pass."""
        shapes = tensor_shapes(self.workshop.model)
        try:
            read_delta(self.shelf.paths[delta], shapes)
        except RemoteError:
            return False
        return True

    def _common_seed(self) -> BlobId:
        model, course = self.workshop.model, self.course
        shards = [shard for each in self.workshop.shards for shard in each]
        job = TrainJob(
            job_id="seed",
            model=model,
            work_dir="",
            shard_paths=[],
            steps=course.seed_steps,
            batch_size=model.recipe.batch_size,
            seed=0,
        )
        expert = build_expert(model, seed=0)
        trainer = expert_trainer(expert, job)
        clips = ClipSet(shards, model)
        for batch in prefetched(clips, batch_plan(job), range(course.seed_steps)):
            trainer.train_step(batch)
        path = self.shelf.folder / "seed"
        write_checkpoint(path, weights_of(expert.network))
        return self.shelf.put(path.read_bytes())

    def _rules(self, plan: Plan, blobs: list[list[BlobId]], seed: BlobId) -> Rules:
        """The simulated charter with this model, these shards, and segments of a fixed length."""
        made, model, course = rules_of(plan), self.workshop.model, self.course
        samples = course.steps * model.recipe.batch_size
        policy = structs.replace(
            made.charter.policy,
            segment_steps_min=course.steps,
            segment_steps_max=course.steps,
            quorum_samples=course.quorum * samples,
            heldout_pairs=128,
            target_version=0,
            audit_one_in=10,
            audit_first=2,
        )
        clusters = [
            structs.replace(
                entry, shards=[structs.replace(entry.shards[0], blob=blob) for blob in own]
            )
            for entry, own in zip(made.charter.clusters, blobs, strict=True)
        ]
        charter = structs.replace(
            made.charter, model=model, policy=policy, clusters=clusters, seed_checkpoint=seed
        )
        return replace(made, charter=charter)


def damaged(raw: bytes) -> bytes:
    """The same delta with a scale that is not a number."""
    tensors = load(zstandard.ZstdDecompressor().decompress(raw))
    name = next(name for name in tensors if name.endswith("/largest"))
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    return zstandard.ZstdCompressor(level=1, write_content_size=True).compress(save(tensors))
