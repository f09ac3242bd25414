"""Bringing an expert's version here: by steps from one that is here where those are smaller, else whole.

Owns that choice, which is pure, and the activity. Whatever goes wrong with steps costs only what they were: the whole
version is fetched then.
"""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from kinoswarm_model.jobs import RebuildDone, RebuildJob
from kinoswarm_model.supervisor import WorkerDied, WorkerError
from kinoswarm_node.context import NodeContext
from kinoswarm_protocol.errors import LocalError, RemoteError
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.messages import ProviderHint
from kinoswarm_protocol.version_steps import VersionStep

_log = logging.getLogger(__name__)


def steps_from(
    steps: Sequence[VersionStep], wanted: BlobId, held_bytes: Mapping[BlobId, int]
) -> list[VersionStep]:
    """The steps to take, oldest first, from the nearest version that is here; none where all of it is no more."""
    taken: list[VersionStep] = []
    reached = wanted
    for step in steps:
        if step.result != reached:
            break
        taken.insert(0, step)
        reached = BlobId(step.base)
        if reached in held_bytes:
            size = sum(one.delta_bytes for one in taken)
            return taken if size < held_bytes[reached] else []
    return []


async def fetch_version(
    node: NodeContext, lease_id: LeaseId, blob: BlobId, hints: Sequence[ProviderHint], what: str
) -> None:
    """Bring the version here. Raises Unreachable, or LocalError for the disk."""
    offered = node.steps.get(lease_id, [])
    steps = steps_from(offered, blob, await _held_bytes(node, offered))
    if steps and await _rebuilt(node, steps, hints, what):
        return
    await node.network.fetch_blob(blob, hints, partial(node.board.fetched, what))


async def _held_bytes(node: NodeContext, steps: Sequence[VersionStep]) -> dict[BlobId, int]:
    found = {}
    for step in steps:
        path = await node.network.blob_path(BlobId(step.base))
        if path is not None:
            found[BlobId(step.base)] = path.stat().st_size
    return found


async def _rebuilt(
    node: NodeContext, steps: Sequence[VersionStep], hints: Sequence[ProviderHint], what: str
) -> bool:
    """Whether the steps led to the version, which is in the store then."""
    work_dir = node.folder.root / "rebuilding"
    try:
        job = await _job(node, steps, hints, work_dir, what)
        done = await node.trainer.run(job, lambda progress: None)
        if not isinstance(done, RebuildDone):
            raise LocalError(f"the worker answered a rebuild job with {type(done).__name__}")
        made = await node.network.add_blob(Path(done.checkpoint_path))
        await node.network.unpin(made)
    except (RemoteError, WorkerDied, WorkerError, OSError) as error:
        _log.info("%s could not be had by steps: %s", what, error)
        return False
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
    return made == steps[-1].result


async def _job(
    node: NodeContext,
    steps: Sequence[VersionStep],
    hints: Sequence[ProviderHint],
    work_dir: Path,
    what: str,
) -> RebuildJob:
    base = await node.network.blob_path(BlobId(steps[0].base))
    if base is None:
        raise FileNotFoundError(f"{steps[0].base[:12]}… had to make room meanwhile")
    tell = partial(node.board.fetched, f"the change to {what}")
    paths = [await node.network.fetch_blob(BlobId(one.delta), hints, tell) for one in steps]
    work_dir.mkdir(exist_ok=True)
    return RebuildJob(
        job_id="rebuild",
        model=node.the_charter().model,
        work_dir=str(work_dir),
        threads=node.threads(os.cpu_count() or 1),
        base_path=str(base),
        step_paths=[str(path) for path in paths],
        blob=steps[-1].result,
    )
