"""What a training step sees, as a function of (seed, step, sample). Owns data order, noise, times and text dropout.

Everything random is drawn on the CPU from streams named by seed, step and sample (noise.py): neither micro-batch size
nor device nor a restart changes what is trained beyond rounding.
Shapes: B batch, C channels, T frames, H height, W width, L text tokens, D text width.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinoswarm_model.data.shards import Shard, read_shard
from kinoswarm_model.flow import noised, times_of
from kinoswarm_model.noise import Purpose, clip_noise, stream
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
        """x_0 of one clip: float32 in -1..1, shape (C, T, H, W)."""
        place, row = self._locate(index)
        shard = self._shards[place]
        return torch.from_numpy(shard.clips[row]).float().div_(127.5).sub_(1.0)

    def label(self, index: int) -> int:
        """Cluster of one clip."""
        return self._labels[self._locate(index)[0]]

    def text(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (L, D), mask (L,) and pooled (D,) of one clip's caption."""
        place, row = self._locate(index)
        shard = self._shards[place]
        caption = int(shard.caption_index[row])
        tokens_LD = torch.from_numpy(shard.text.tokens[caption]).float()
        mask_L = torch.from_numpy(shard.text.mask[caption]).bool()
        return tokens_LD, mask_L, torch.from_numpy(shard.text.pooled[caption]).float()

    def batch(self, indices: Sequence[int], draws: Sequence["Draw"]) -> Batch:
        """Clips with what was drawn for each."""
        texts = [self.text(index) for index in indices]
        kept_B = torch.tensor([not draw.drop_text for draw in draws])
        return Batch(
            x_0_BCTHW=torch.stack([self.clip(index) for index in indices]),
            eps_BCTHW=torch.stack([draw.eps_CTHW for draw in draws]),
            t_B=torch.tensor([draw.t for draw in draws], dtype=torch.float32),
            text_tokens_BLD=torch.stack([tokens for tokens, _, _ in texts]),
            text_mask_BL=torch.stack([mask for _, mask, _ in texts]) & kept_B[:, None],
            text_pooled_BD=torch.stack([pooled for _, _, pooled in texts]) * kept_B[:, None],
            label_B=torch.tensor([self.label(index) for index in indices]),
        )

    def _locate(self, index: int) -> tuple[int, int]:
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        return place, index - int(self._starts[place])


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What chance decides for one sample."""

    eps_CTHW: Tensor
    t: float
    drop_text: bool


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How chance is drawn: which stream, and the times and text dropout wanted."""

    purpose: Purpose
    text_dropout: float
    uniform_t: bool = False
    """Times uniform in 0..1 (the router must know all of them) instead of the recipe's."""

    def draw(self, seed: int, indices: Sequence[int], model: ModelSpec) -> Draw:
        """Time, text dropout and noise of one sample, drawn in this order."""
        generator = stream(seed, self.purpose, *indices)
        return Draw(
            t=self._time(generator, model),
            drop_text=bool(generator.random() < self.text_dropout),
            eps_CTHW=clip_noise(generator, model.clip),
        )

    def _time(self, generator: np.random.Generator, model: ModelSpec) -> float:
        if self.uniform_t:
            return float(generator.random())
        normal = torch.tensor([generator.standard_normal()], dtype=torch.float32)
        return float(times_of(normal, model.recipe))


def order(seed: int, num_clips: int, first: int, count: int) -> list[int]:
    """Clip indices of samples first .. first + count - 1: one seeded permutation after another, epoch by epoch."""
    indices: list[int] = []
    while len(indices) < count:
        epoch, place = divmod(first + len(indices), num_clips)
        permutation = stream(seed, Purpose.ORDER, epoch).permutation(num_clips)
        indices += permutation[place : place + count - len(indices)].tolist()
    return indices


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The batches of a whole job: a pure function of this, the step and the clips."""

    seed: int
    batch_size: int
    drawing: Drawing


def training_batch(clips: ClipSet, plan: BatchPlan, step: int) -> Batch:
    """The batch of one optimizer step."""
    indices = order(plan.seed, len(clips), step * plan.batch_size, plan.batch_size)
    draws = [
        plan.drawing.draw(plan.seed, (step, sample), clips.model)
        for sample in range(plan.batch_size)
    ]
    return clips.batch(indices, draws)


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


def _check_geometry(shard: Shard, model: ModelSpec) -> None:
    clip, text = model.clip, model.text
    if clip.codec != "pixel":
        raise LocalError(
            f"codec {clip.codec!r}: this version trains on pixels only; update kinoswarm to train on cached latents"
        )
    wanted = (clip.channels, clip.frames, clip.height, clip.width)
    if shard.clips.shape[1:] != wanted:
        raise MalformedBytes(f"shard of clips {shard.clips.shape[1:]}, this swarm's are {wanted}")
    if shard.text.tokens.shape[1:] != (text.max_tokens, text.dim):
        raise MalformedBytes(
            f"shard with text of shape {shard.text.tokens.shape[1:]}, expected {(text.max_tokens, text.dim)}"
        )
