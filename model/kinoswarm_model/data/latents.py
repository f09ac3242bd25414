"""Clips as a VAE's latents, cached once so that training never runs the VAE. Owns the spool file and its statistics.

Latents lie in the file as the VAE gives them (float16); shards hold (latent - mean) / std, channel by channel, over all
clips. Rows are functions of the clips before them, so a file's length says what is done.
Shapes: C channels, T frames, H height, W width.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.engine import Engine, Work
from kinoswarm_model.data.row_file import RowFile, Rows
from kinoswarm_protocol.specs import VaeSpec

if TYPE_CHECKING:
    from kinoswarm_model.vae import VideoVae

Progress = Callable[[int, int, str], None]

_AT_ONCE = 64
_MOST_CLIPS = 8
"""In one task of an engine."""
_SMALLEST_STD = 1e-4
"""A channel that never changes is left as it is, up to this."""


@dataclass(frozen=True)
class Latents:
    """The normalised latents of all clips."""

    raw: RowFile[np.float16]
    spec: VaeSpec

    @property
    def grid(self) -> tuple[int, int, int]:
        """Frames, rows and columns."""
        _, frames, height, width = self.raw.shape
        return frames, height, width

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float16]:
        """Of these clips, (M, C, T, H, W)."""
        mean, std = _columns(self.spec.mean), _columns(self.spec.std)
        return ((self.raw.take(indices).astype(np.float32) - mean) / std).astype(np.float16)


def encode_clips(
    clips: RowFile[np.uint8], vae_dir: Path, path: Path, report: Progress, engine: Engine
) -> Latents:
    """Encode every clip, one at a time so that a clip's latents depend on nothing else."""
    import torch

    from kinoswarm_model.vae import VideoVae

    vae = VideoVae.load(vae_dir)
    _, frames, height, width = clips.shape
    steps = vae.steps(frames, height, width)
    shape = (
        steps.channels,
        1 + (frames - 1) // steps.frame_step,
        height // steps.pixel_step,
        width // steps.pixel_step,
    )
    raw: RowFile[np.float16] = RowFile(path, np.float16, shape)
    work: Work[Rows[np.uint8], NDArray[np.float16]] = Work(
        run=functools.partial(_encoded, vae),
        load=functools.partial(_encoding, vae_dir),
        threads=torch.get_num_threads(),
        most_at_once=_MOST_CLIPS,
    )
    for latents in engine.map(work, clips.parts(1, len(raw))):
        raw.append(latents)
        report(len(raw), len(clips), "encoding latents")
    mean, std = channel_statistics(raw)
    spec = VaeSpec(
        class_name=vae.class_name,
        frame_step=steps.frame_step,
        pixel_step=steps.pixel_step,
        mean=mean,
        std=std,
    )
    return Latents(raw, spec)


def _encoded(vae: "VideoVae", rows: Rows[np.uint8]) -> NDArray[np.float16]:
    import torch

    return np.asarray(vae.encode(torch.from_numpy(rows.read())).half().numpy())


def _encoding(vae_dir: Path) -> Callable[[Rows[np.uint8]], NDArray[np.float16]]:
    from kinoswarm_model.vae import VideoVae

    return functools.partial(_encoded, VideoVae.load(vae_dir))


def channel_statistics(raw: RowFile[np.float16]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of every channel, in float64, in two passes."""
    per_row = len(raw) * int(np.prod(raw.shape[1:]))
    total = np.zeros(raw.shape[0])
    for batch in raw.batches(_AT_ONCE):
        total += batch.astype(np.float64).sum(axis=(0, 2, 3, 4))
    mean = total / per_row
    squares = np.zeros(raw.shape[0])
    for batch in raw.batches(_AT_ONCE):
        squares += ((batch.astype(np.float64) - _columns(mean.tolist())) ** 2).sum(
            axis=(0, 2, 3, 4)
        )
    std = np.maximum(np.sqrt(squares / per_row), _SMALLEST_STD)
    return mean.tolist(), std.tolist()


def _columns(values: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(-1, 1, 1, 1)
