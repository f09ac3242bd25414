"""A version as its base plus a coded step, byte for byte. Owns how steps are made and how versions come of them.

What is published is what base and step give, so a node that holds the base needs the step alone. The merge of several
contributions is coded with CODEC, whose error is a 250th of a block's largest change at most; the delta of a single
contribution is the step itself, unless it was shortened.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from kinoswarm_model.checkpoints import (
    Shapes,
    encode_tensors,
    read_checkpoint,
    write_atomic,
)
from kinoswarm_model.delta import applied, encode_difference, read_delta
from kinoswarm_model.delta_codecs import INT8
from kinoswarm_model.experts import tensor_shapes
from kinoswarm_model.jobs import JobProgress, RebuildDone, RebuildJob
from kinoswarm_protocol.errors import HashMismatch
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import CHUNK_BYTES
from kinoswarm_protocol.manifest import encode_manifest, manifest_of

CODEC = INT8


def coded_step(folder: Path, base: Mapping[str, Tensor], merged: Mapping[str, Tensor]) -> Path:
    """The file of the step from `base` to about `merged`. Raises NotFinite when the merge is not finite."""
    path = folder / "step.zst"
    write_atomic(path, encode_difference({name: merged[name] - base[name] for name in base}, CODEC))
    return path


def after_step(base: Mapping[str, Tensor], step: Path, shapes: Shapes) -> dict[str, Tensor]:
    """The version that a step gives. Raises NotFinite when that is not finite."""
    return applied(base, read_delta(step, shapes))


def run(job: RebuildJob, report: Callable[[JobProgress], None]) -> RebuildDone:
    """Take the steps from a version that is here. Raises HashMismatch when the result is not the wanted blob."""
    shapes = tensor_shapes(job.model)
    weights = read_checkpoint(Path(job.base_path), shapes)
    for number, path in enumerate(job.step_paths, start=1):
        weights = after_step(weights, Path(path), shapes)
        total = len(job.step_paths)
        report(
            JobProgress(job_id=job.job_id, step=number, total=total, loss=None, what="rebuilding")
        )
    raw = encode_tensors(weights)
    found = blob_of(raw)
    if found != job.blob:
        raise HashMismatch(
            f"the steps give blob {found[:12]}…, expected {job.blob[:12]}…: the whole version is needed"
        )
    whole = Path(job.work_dir) / "checkpoint.safetensors"
    write_atomic(whole, raw)
    return RebuildDone(checkpoint_path=str(whole))


def blob_of(raw: bytes) -> BlobId:
    """The blob that these bytes are."""
    view = memoryview(raw)
    chunks = (bytes(view[at : at + CHUNK_BYTES]) for at in range(0, len(raw), CHUNK_BYTES))
    return encode_manifest(manifest_of(chunks))[0]
