"""Clips of the expert that this node trains: when one is made, where it lies, which go. Owns the folder `samples`.

A clip shows a published version, before the node trains on it. It is a courtesy: whatever goes wrong with it costs the
segment nothing but the time it took, and a machine on which it takes too long is spared the next ones.
"""

import asyncio
import os
import shutil

import msgspec
from msgspec import Struct

from kinoswarm_model.jobs import SampleDone, SampleJob
from kinoswarm_model.supervisor import WorkerDied, WorkerError
from kinoswarm_node.context import NodeContext
from kinoswarm_node.swarm_folder import SwarmFolder
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import LocalError, MalformedBytes
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.messages import TrainOrder

KEPT = 24
"""Clips that stay on disk; the oldest go first. One has some hundred kilobytes."""

PATIENCE_S = 120.0
"""A clip that takes longer is given up, and no other is tried until the node starts again."""

_INDEX = "samples.json"
_SEED = 0
"""The same noise for every version: what changes between clips is the expert."""


class OwnSample(Struct, frozen=True, kw_only=True):
    """One clip."""

    file: str
    cluster: int
    label: str
    version: int
    caption: str
    at_ms: int
    segments: int
    """How many segments this node had finished when it was made."""


def samples(folder: SwarmFolder) -> list[OwnSample]:
    """Newest first; a damaged list is begun anew."""
    raw = folder.text(_INDEX)
    try:
        found = decode_json(raw or b"[]", list[OwnSample])
    except MalformedBytes:
        return []
    return sorted(found, key=lambda made: -made.at_ms)


def is_due(made: list[OwnSample], order: TrainOrder, segments: int, every: int) -> bool:
    """Whether a clip of this order's base is worth making: a version not shown yet, and `every` segments later.

    The first comes with the second segment: nobody's first optimizer step waits for a clip.
    """
    if not every or any(
        (one.cluster, one.version) == (order.cluster, order.base_version) for one in made
    ):
        return False
    return segments - made[0].segments >= every if made else segments > 0


async def make_sample(node: NodeContext, order: TrainOrder) -> None:
    """Make a clip of the order's base when one is due. Never fails the segment; cancelling ends the worker at once."""
    segments = sum(1 for _ in node.folder.history())
    made = samples(node.folder)
    if node.no_samples or not is_due(made, order, segments, node.settings.sample_every):
        return
    try:
        async with asyncio.timeout(PATIENCE_S):
            done = await node.trainer.run(await _job(node, order), lambda progress: None)
        if isinstance(done, SampleDone):
            _keep(node, order, done, segments)
    except (OSError, WorkerDied, WorkerError, LocalError) as error:  # a TimeoutError is an OSError
        node.no_samples = str(error) or f"a clip takes longer than {PATIENCE_S:.0f} s here"


async def _job(node: NodeContext, order: TrainOrder) -> SampleJob:
    charter = node.the_charter()
    base = await node.network.blob_path(BlobId(order.base))
    shard = await node.network.blob_path(BlobId(charter.clusters[order.cluster].shards[0].blob))
    if base is None or shard is None:
        raise LocalError("the store had to give up what a clip is made from")
    work_dir = node.folder.worker_dir / "sampling"
    work_dir.mkdir(exist_ok=True)
    return SampleJob(
        job_id=f"sample-{order.cluster}-{order.base_version}",
        model=charter.model,
        work_dir=str(work_dir),
        device=await node.device(),
        threads=node.threads(os.cpu_count() or 1),
        checkpoint_path=str(base),
        shard_path=str(shard),
        seed=_SEED,
    )


def _keep(node: NodeContext, order: TrainOrder, done: SampleDone, segments: int) -> None:
    """Move the clip in, then name it in the list, then drop the oldest: killed in between, a nameless clip is left."""
    folder = node.folder.root / "samples"
    folder.mkdir(exist_ok=True)
    name = f"cluster-{order.cluster}-version-{order.base_version}.mp4"
    os.replace(done.clip_path, folder / name)
    shutil.rmtree(node.folder.worker_dir / "sampling", ignore_errors=True)
    fresh = OwnSample(
        file=name,
        cluster=order.cluster,
        label=node.the_charter().clusters[order.cluster].label,
        version=order.base_version,
        caption=done.caption,
        at_ms=node.now_ms(),
        segments=segments,
    )
    kept = [fresh, *samples(node.folder)][:KEPT]
    node.folder.keep_text(_INDEX, msgspec.json.encode(kept))
    named = {one.file for one in kept}
    for path in folder.glob("*.mp4"):
        if path.name not in named:
            path.unlink(missing_ok=True)
