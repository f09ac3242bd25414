"""Resume points of a job: what survives a kill -9. Owns their files, two generations of them, and their checks.

A point is one file: a MessagePack header frame, then safetensors. The header carries the SHA-256 of the tensors and of
the job, so a torn, rotten or foreign file is passed over and the older generation is used.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from torch import Tensor

from kinoswarm_model.checkpoints import decode_tensors, encode_tensors, write_atomic
from kinoswarm_protocol import codec
from kinoswarm_protocol.errors import RemoteError

_MAX_HEADER = 64 * 1024 * 1024
"""A header lists the losses so far: nine bytes a step."""
_GENERATIONS = 2
_PREFIX_BYTES = 4
_SECONDS_PER_DAY = 86_400


class ResumeHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a resume point says about itself."""

    job_sha256: str
    step: int
    """Steps already done."""
    losses: list[float]
    seconds: float
    tensors_sha256: str


@dataclass(frozen=True, kw_only=True)
class SavePolicy:
    """How often a resume point is written: no more often than `least_s`, and within a budget that spares the disk."""

    least_s: float
    bytes_per_day: float = 0.0
    """0 is no limit."""

    def every_s(self, size_bytes: int) -> float:
        """Seconds between points of this size."""
        if not self.bytes_per_day:
            return self.least_s
        return max(self.least_s, size_bytes * _SECONDS_PER_DAY / self.bytes_per_day)


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """A job's state after `step` steps."""

    step: int
    losses: list[float]
    seconds: float
    tensors: Mapping[str, Tensor]


class ResumeStore:
    """The resume points of one job in one folder."""

    def __init__(self, folder: Path, job_sha256: str) -> None:
        self._folder = folder
        self._job_sha256 = job_sha256

    def save(self, point: ResumePoint) -> None:
        """Write over the older generation, atomically."""
        self._remove_torn()
        raw = encode_tensors(point.tensors)
        header = ResumeHeader(
            job_sha256=self._job_sha256,
            step=point.step,
            losses=point.losses,
            seconds=point.seconds,
            tensors_sha256=hashlib.sha256(raw).hexdigest(),
        )
        write_atomic(self._oldest(), codec.frame(codec.encode(header)) + raw)

    def load(self) -> ResumePoint | None:
        """The newest point that is whole and belongs to this job, or None: then the job starts at step 0."""
        points = [point for path in self._paths() if (point := self._read(path)) is not None]
        return max(points, key=lambda point: point.step, default=None)

    def clear(self) -> None:
        """Remove the points of a finished job."""
        self._remove_torn()
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _remove_torn(self) -> None:
        """What workers left that were killed while they wrote, each as large as a point; one writes at a time."""
        for path in self._folder.glob(".resume-*.part"):
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return [self._folder / f"resume-{generation}.bin" for generation in range(_GENERATIONS)]

    def _oldest(self) -> Path:
        steps = {path: self._step(path) for path in self._paths()}
        return min(steps, key=lambda path: steps[path])

    def _step(self, path: Path) -> int:
        """Of a point's header alone: the tensors of a large expert are gigabytes."""
        try:
            with path.open("rb") as file:
                length = codec.frame_length(file.read(_PREFIX_BYTES), _MAX_HEADER)
                header = codec.decode(file.read(length), ResumeHeader, _MAX_HEADER)
        except (FileNotFoundError, RemoteError):
            return -1
        return header.step if header.job_sha256 == self._job_sha256 else -1

    def _read(self, path: Path) -> ResumePoint | None:
        parts = _split(path)
        if parts is None:
            return None
        header, raw = parts
        if header.job_sha256 != self._job_sha256:
            return None
        if hashlib.sha256(raw).hexdigest() != header.tensors_sha256:
            return None
        return ResumePoint(
            step=header.step,
            losses=header.losses,
            seconds=header.seconds,
            tensors=decode_tensors(raw),
        )


def _split(path: Path) -> tuple[ResumeHeader, bytes] | None:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        length = codec.frame_length(raw[:_PREFIX_BYTES], _MAX_HEADER)
        stop = _PREFIX_BYTES + length
        return codec.decode(raw[_PREFIX_BYTES:stop], ResumeHeader, _MAX_HEADER), raw[stop:]
    except RemoteError:
        return None
