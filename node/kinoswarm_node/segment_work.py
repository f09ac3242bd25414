"""Doing a segment: fetch its blobs, train it in the worker, sign and store the result. Activities, no decisions."""

import asyncio
import math
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from msgspec import structs

from kinoswarm_model.jobs import JobProgress, TrainDone, TrainJob
from kinoswarm_model.supervisor import WorkerDied, WorkerError
from kinoswarm_node import life_events as ev
from kinoswarm_node import own_samples
from kinoswarm_node.context import NodeContext
from kinoswarm_node.following import coordinator_hints
from kinoswarm_node.joining import leave_mode, remember_fit
from kinoswarm_node.life_cycle import smaller_fit
from kinoswarm_node.pulling import train_order
from kinoswarm_node.version_fetch import fetch_version
from kinoswarm_protocol.charter import ClusterEntry
from kinoswarm_protocol.envelope import seal
from kinoswarm_protocol.errors import Code, LocalError, Refused, RemoteError
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.limits import MAX_SENTENCE
from kinoswarm_protocol.messages import (
    CONTRIBUTION,
    Contribution,
    FailedOutcome,
    Lease,
    Outcome,
    Progress,
    ProgressNoted,
    TrainOrder,
    TrainOutcome,
)

FIRST_PROGRESS_S = 1.0
PROGRESS_EVERY_S = 60.0
"""Reports come at doubling intervals between these: pages show a start soon, and a thousand nodes send 17 a second."""


def stored_lease(node: NodeContext, lease_id: LeaseId) -> Lease:
    """The lease as it lies on disk; raises LocalError when it is gone."""
    opened = node.folder.lease(lease_id)
    if opened is None:
        raise LocalError(f"the lease {lease_id} is not on disk any more")
    return opened.body


# --- fetching -----------------------------------------------------------------------------------


async def fetch(node: NodeContext, segment: ev.Segment) -> ev.Event:
    """Bring base and shards here. Raises Unreachable, or LocalError before the disk is full."""
    order = train_order(stored_lease(node, segment.lease_id))
    hints = [*node.hints.get(segment.lease_id, []), *coordinator_hints(node)]
    cluster = node.the_charter().clusters[order.cluster]
    _check_space(node, await _missing_bytes(node, order))
    base = BlobId(order.base)
    if await node.network.blob_path(base) is None:
        what = f"version {order.base_version} of {cluster.label}"
        await fetch_version(node, segment.lease_id, base, hints, what)
    for blob, what in _shards(cluster):
        if await node.network.blob_path(blob) is None:
            await node.network.fetch_blob(blob, hints, partial(node.board.fetched, what))
    return ev.Fetched()


def _shards(cluster: ClusterEntry) -> list[tuple[BlobId, str]]:
    return [
        (BlobId(shard.blob), f"shard {number} of {len(cluster.shards)} of {cluster.label}")
        for number, shard in enumerate(cluster.shards, start=1)
    ]


async def _missing_bytes(node: NodeContext, order: TrainOrder) -> int:
    """Bytes of the shards that are not here; the base's size is not known before its manifest."""
    shards = node.the_charter().clusters[order.cluster].shards
    return sum(
        [s.size_bytes for s in shards if await node.network.blob_path(BlobId(s.blob)) is None]
    )


def _check_space(node: NodeContext, wanted_bytes: int) -> None:
    if not node.settings.keep_free_bytes:
        return
    free = shutil.disk_usage(node.folder.root).free
    if free - wanted_bytes < node.settings.keep_free_bytes:
        raise LocalError(
            f"the disk is too full: {wanted_bytes / 1e9:.1f} GB are to be fetched to {node.folder.root}, "
            f"{free / 1e9:.1f} GB are free, and keep_free_gib = {node.settings.keep_free_gib:g} must stay free; "
            "free some space or change that setting"
        )


# --- training -----------------------------------------------------------------------------------


async def train(node: NodeContext, segment: ev.Segment, fit: ev.Fit) -> ev.Event:
    """Train; on success the signed contribution lies in the outbox before this returns."""
    await own_samples.make_sample(node, train_order(stored_lease(node, segment.lease_id)))
    try:
        job = await _train_job(node, segment, fit)
    except WorkerDied as error:
        return ev.WorkerDied(sentence=str(error))
    reporter = asyncio.create_task(_report_progress(node, segment), name="report progress")
    worker = asyncio.create_task(
        node.trainer.run(job, lambda progress: _show(node, progress)), name="train"
    )
    try:
        done, _ = await asyncio.wait({reporter, worker}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        reporter.cancel()
        worker.cancel()
        await asyncio.gather(reporter, worker, return_exceptions=True)
    if worker not in done:
        return ev.Withdrawn(sentence=reporter.result())
    return await _finished(node, segment, fit, worker)


async def _finished(
    node: NodeContext, segment: ev.Segment, fit: ev.Fit, worker: "asyncio.Task[object]"
) -> ev.Event:
    """Nothing is awaited after the contribution is stored: a pause finds it stored and told, or neither."""
    try:
        result = worker.result()
    except WorkerDied as error:
        return ev.WorkerDied(sentence=str(error))
    except WorkerError as error:
        if error.out_of_memory:
            if smaller_fit(fit, segment.batch_size) is None:
                leave_mode(node, train_order(stored_lease(node, segment.lease_id)).mode)
            return ev.OutOfMemory(sentence=str(error))
        return ev.WorkFailed(code=_code(error.code), sentence=str(error))
    if not isinstance(result, TrainDone):
        raise LocalError(f"the worker answered a train job with {type(result).__name__}")
    if not result.is_finite:
        sentence = (
            "the training gave numbers that are not finite; this machine's memory may be faulty"
        )
        return ev.WorkFailed(code=Code.NOT_FINITE, sentence=sentence)
    used = ev.Fit(
        micro_batch=result.micro_batch, checkpoint_activations=result.checkpoint_activations
    )
    remember_fit(node, used, segment.batch_size)
    await _store(node, segment.lease_id, await _outcome(node, result))
    return ev.Trained()


async def _train_job(node: NodeContext, segment: ev.Segment, fit: ev.Fit) -> TrainJob:
    order = train_order(stored_lease(node, segment.lease_id))
    charter = node.the_charter()
    cluster = charter.clusters[order.cluster]
    return TrainJob(
        job_id=segment.lease_id,
        model=charter.model,
        work_dir=str(node.folder.work_dir(segment.lease_id)),
        device=await node.device(),
        threads=node.threads(os.cpu_count() or 1),
        shard_paths=[str(await _here(node, BlobId(shard.blob))) for shard in cluster.shards],
        steps=order.steps,
        batch_size=order.batch_size,
        seed=order.seed,
        base_path=str(await _here(node, BlobId(order.base))),
        objective=cluster.objective,
        mode=order.mode,
        delta_codec=charter.policy.delta_codec,
        micro_batch=min(fit.micro_batch or node.settings.micro_batch, order.batch_size),
        resume_every_s=node.settings.resume_every_s,
        resume_bytes_per_day=node.settings.max_writes_gb_per_day * 1e9,
        checkpoint_activations=fit.checkpoint_activations,
        precision=node.settings.precision,
        compile_network=node.settings.compile_network,
        steps_per_progress=max(1, order.steps // 200),
    )


async def _here(node: NodeContext, blob: BlobId) -> Path:
    path = await node.network.blob_path(blob)
    if path is None:
        raise LocalError(
            f"blob {blob[:12]}… was fetched, but the store had to give it up for others: raise max_disk_gib"
        )
    return path


def _show(node: NodeContext, progress: JobProgress) -> None:
    loss = progress.loss if progress.loss is not None and math.isfinite(progress.loss) else None
    node.board.trained(structs.replace(progress, loss=loss))


async def _report_progress(node: NodeContext, segment: ev.Segment) -> str:
    """Tell the coordinator now and then; returns its sentence when it no longer wants the segment."""
    pause_s = FIRST_PROGRESS_S
    while True:
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, PROGRESS_EVERY_S)
        try:
            noted = await node.client.ask(_progress(node, segment), ProgressNoted)
        except Refused as error:
            if error.code in (Code.UNKNOWN_LEASE, Code.LEASE_EXPIRED, Code.LEASE_FOREIGN):
                return str(error)
        except RemoteError:
            pass  # a coordinator that is away costs nothing while training goes on
        else:
            if not noted.go_on:
                return noted.sentence


def _progress(node: NodeContext, segment: ev.Segment) -> Progress:
    shown = node.board.status.segment
    return Progress(
        lease_id=segment.lease_id,
        step=shown.step if shown else 0,
        loss=shown.loss if shown else None,
    )


# --- results ------------------------------------------------------------------------------------


async def _outcome(node: NodeContext, done: TrainDone) -> TrainOutcome:
    path = Path(done.output_path)
    size = path.stat().st_size
    return done.outcome(await node.network.add_blob(path), size)


async def give_up(node: NodeContext, segment: ev.Segment, code: Code, sentence: str) -> ev.Event:
    """Store a signed FailedOutcome: the lease is free again as soon as it is sent."""
    outcome = FailedOutcome(code=code.value, sentence=sentence[:MAX_SENTENCE])
    await _store(node, segment.lease_id, outcome)
    return ev.GaveUp()


async def _store(node: NodeContext, lease_id: LeaseId, outcome: Outcome) -> None:
    contribution = Contribution(
        lease_id=lease_id,
        node=node.key.peer_id,
        finished_at_ms=node.client.coordinator_now_ms(),
        outcome=outcome,
    )
    raw = seal(node.key, CONTRIBUTION, node.invite.swarm, contribution)
    node.folder.keep_contribution(lease_id, raw)


def _code(text: str) -> Code:
    try:
        return Code(text)
    except ValueError:
        return Code.WORK_FAILED


def served_blobs(node: NodeContext, lease_ids: Sequence[LeaseId]) -> list[BlobId]:
    """The deltas of these contributions, which must stay until their verdict."""
    outcomes = [c.outcome for i in lease_ids if (c := node.folder.contribution(i)) is not None]
    return [BlobId(o.delta) for o in outcomes if isinstance(o, TrainOutcome)]
