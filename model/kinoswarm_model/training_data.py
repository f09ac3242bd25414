"""What a training step sees, as a function of (seed, step, sample). Owns data order, noise, times and text dropout.

Everything random is drawn on the CPU from streams named by seed, step and sample (noise.py): neither micro-batch size
nor device nor a restart changes what is trained beyond rounding.
Shapes: B batch, C channels, T frames, H height, W width, L text tokens, D text width.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinoswarm_model.data.shards import Shard, read_shard
from kinoswarm_model.data.text import TextBatch
from kinoswarm_model.flow import noised, times_of
from kinoswarm_model.noise import Purpose, fill_with_noise, stream
from kinoswarm_protocol.errors import LocalError, MalformedBytes
from kinoswarm_protocol.specs import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One optimizer step's clips with noise, times and text; text that was dropped has an all-false mask."""

    x_0_BCTHW: Tensor
    eps_BCTHW: Tensor
    t_B: Tensor
    text_tokens_BLD: Tensor
    text_mask_BL: Tensor
    text_pooled_BD: Tensor
    """Zero where text was dropped."""
    label_B: Tensor
    """Cluster of every clip, int64."""

    def __len__(self) -> int:
        return len(self.t_B)

    @property
    def x_t_BCTHW(self) -> Tensor:
        """The noisy clips."""
        return noised(self.x_0_BCTHW, self.eps_BCTHW, self.t_B)

    def part(self, start: int, stop: int, device: torch.device) -> "Batch":
        """Rows start..stop on a device."""
        return Batch(
            x_0_BCTHW=self.x_0_BCTHW[start:stop].to(device),
            eps_BCTHW=self.eps_BCTHW[start:stop].to(device),
            t_B=self.t_B[start:stop].to(device),
            text_tokens_BLD=self.text_tokens_BLD[start:stop].to(device),
            text_mask_BL=self.text_mask_BL[start:stop].to(device),
            text_pooled_BD=self.text_pooled_BD[start:stop].to(device),
            label_B=self.label_B[start:stop].to(device),
        )


class ClipSet:
    """Clips of several shards, indexed from 0; `labels` is each shard's cluster.

    Raises MalformedBytes when a shard is not of this model's geometry.
    """

    def __init__(
        self, shards: Sequence[Shard], model: ModelSpec, labels: Sequence[int] | None = None
    ) -> None:
        if not shards:
            raise LocalError("no shards: a segment needs at least one")
        for shard in shards:
            _check_geometry(shard, model)
        self.model = model
        self._shards = list(shards)
        self._labels = list(labels) if labels is not None else [0] * len(shards)
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])

    @classmethod
    def read(cls, paths: Sequence[str], model: ModelSpec) -> "ClipSet":
        """Read shard files, in this order."""
        return cls.read_clusters([paths], model)

    @classmethod
    def read_clusters(
        cls, paths_by_cluster: Sequence[Sequence[str]], model: ModelSpec
    ) -> "ClipSet":
        """Read the shard files of several clusters; clips are labelled with their cluster's index."""
        labelled = [(k, path) for k, paths in enumerate(paths_by_cluster) for path in paths]
        shards = [read_shard(Path(path)) for _, path in labelled]
        return cls(shards, model, [k for k, _ in labelled])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def clip(self, index: int) -> Tensor:
        """x_0 of one clip: float32, shape (C, T, H, W); pixels are in -1..1."""
        place, row = self._locate(index)
        return _numbers(self._shards[place].clips[row])

    def label(self, index: int) -> int:
        """Cluster of one clip."""
        return self._labels[self._locate(index)[0]]

    def text(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (L, D), mask (L,) and pooled (D,) of one clip's caption."""
        text, caption = self._caption(*self._locate(index))
        tokens_LD = torch.from_numpy(text.tokens[caption]).float()
        mask_L = torch.from_numpy(text.mask[caption]).bool()
        return tokens_LD, mask_L, torch.from_numpy(text.pooled[caption]).float()

    def batch(self, indices: Sequence[int], draws: "Draws") -> Batch:
        """Clips with what was drawn for each."""
        places = [self._locate(index) for index in indices]
        texts = [self._caption(place, row) for place, row in places]
        kept_B = ~torch.from_numpy(draws.drop_text_B)
        values = np.stack([self._shards[place].clips[row] for place, row in places])
        pooled_BD = torch.from_numpy(np.stack([text.pooled[row] for text, row in texts])).float()
        tokens_BLD = torch.from_numpy(np.stack([text.tokens[row] for text, row in texts])).float()
        mask_BL = torch.from_numpy(np.stack([text.mask[row] for text, row in texts])).bool()
        return Batch(
            x_0_BCTHW=_numbers(values),
            eps_BCTHW=draws.eps_BCTHW,
            t_B=draws.t_B,
            text_tokens_BLD=tokens_BLD,
            text_mask_BL=mask_BL & kept_B[:, None],
            text_pooled_BD=pooled_BD * kept_B[:, None],
            label_B=torch.tensor([self._labels[place] for place, _ in places]),
        )

    def _caption(self, place: int, row: int) -> tuple[TextBatch, int]:
        shard = self._shards[place]
        return shard.text, int(shard.caption_index[row])

    def _locate(self, index: int) -> tuple[int, int]:
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        return place, index - int(self._starts[place])


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What chance decides for a batch."""

    eps_BCTHW: Tensor
    t_B: Tensor
    drop_text_B: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How chance is drawn: which stream, and the times and text dropout wanted."""

    purpose: Purpose
    text_dropout: float
    uniform_t: bool = False
    """Times uniform in 0..1 (the router must know all of them) instead of the recipe's."""

    def draw(self, seed: int, names: Sequence[tuple[int, ...]], model: ModelSpec) -> Draws:
        """Every sample from the stream of its own name: time, then text dropout, then noise."""
        clip = model.clip
        shape = (len(names), clip.channels, clip.frames, clip.height, clip.width)
        eps_BCTHW = torch.empty(shape)
        chance_B2 = np.empty((len(names), 2))
        for sample, name in enumerate(names):
            generator = stream(seed, self.purpose, *name)
            first = generator.random() if self.uniform_t else generator.standard_normal()
            chance_B2[sample] = first, generator.random()
            fill_with_noise(generator, eps_BCTHW[sample])
        t_B = torch.from_numpy(chance_B2[:, 0]).float()
        return Draws(
            eps_BCTHW=eps_BCTHW,
            t_B=t_B if self.uniform_t else times_of(t_B, model.recipe),
            drop_text_B=chance_B2[:, 1] < self.text_dropout,
        )


def order(seed: int, num_clips: int, first: int, count: int) -> list[int]:
    """Clip indices of samples first .. first + count - 1: one seeded permutation after another, epoch by epoch."""
    indices: list[int] = []
    while len(indices) < count:
        epoch, place = divmod(first + len(indices), num_clips)
        permutation = _permutation(seed, num_clips, epoch)
        indices += permutation[place : place + count - len(indices)].tolist()
    return indices


@lru_cache(maxsize=2)
def _permutation(seed: int, num_clips: int, epoch: int) -> NDArray[np.int64]:
    return stream(seed, Purpose.ORDER, epoch).permutation(num_clips)


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The batches of a whole job: a pure function of this, the step and the clips."""

    seed: int
    batch_size: int
    drawing: Drawing


def training_batch(clips: ClipSet, plan: BatchPlan, step: int) -> Batch:
    """The batch of one optimizer step."""
    indices = order(plan.seed, len(clips), step * plan.batch_size, plan.batch_size)
    names = [(step, sample) for sample in range(plan.batch_size)]
    return clips.batch(indices, plan.drawing.draw(plan.seed, names, clips.model))


def prefetched(clips: ClipSet, plan: BatchPlan, steps: range) -> Iterator[Batch]:
    """Batches of these steps, each prepared on a second thread while the step before it is computed."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Batch]] = deque()
        for step in steps:
            waiting.append(pool.submit(training_batch, clips, plan, step))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        for last in waiting:
            yield last.result()


_CODEC_WORDS = {"pixel": "pixels", "vae": "a VAE's latents"}


def _numbers(values: NDArray[Any]) -> Tensor:
    """Pixels to -1..1; latents are normalised already."""
    numbers = torch.from_numpy(values).float()
    return numbers.div_(127.5).sub_(1.0) if values.dtype == np.uint8 else numbers


def _check_geometry(shard: Shard, model: ModelSpec) -> None:
    clip, text = model.clip, model.text
    if (shard.clips.dtype == np.uint8) != (clip.codec == "pixel"):
        raise MalformedBytes(
            f"shard of {shard.clips.dtype} clips; this swarm trains on {_CODEC_WORDS[clip.codec]}"
        )
    wanted = (clip.channels, clip.frames, clip.height, clip.width)
    if shard.clips.shape[1:] != wanted:
        raise MalformedBytes(f"shard of clips {shard.clips.shape[1:]}, this swarm's are {wanted}")
    if shard.text.tokens.shape[1:] != (text.max_tokens, text.dim):
        raise MalformedBytes(
            f"shard with text of shape {shard.text.tokens.shape[1:]}, expected {(text.max_tokens, text.dim)}"
        )
