"""The real side of an evaluation: clips with captions from shard files. Owns which clips take which part.

Held-out clips give the captions and are what generated clips are compared with. Clips of the public shards, split in
two, give the real-against-real floor and the PCA: no clip takes two parts.
Shapes: N clips, T frames, H height, W width, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.shards import Shard, read_shard
from kinoswarm_model.data.text import TextBatch
from kinoswarm_model.training_data import order
from kinoswarm_protocol.errors import LocalError, MalformedBytes
from kinoswarm_protocol.specs import ModelSpec


@dataclass(frozen=True, kw_only=True)
class RealClips:
    """N clips; `text` has a row for every clip."""

    pixels: NDArray[np.uint8]
    """(N, T, H, W, C)"""
    captions: list[str]
    text: TextBatch
    clusters: list[int]
    num_distinct: int
    """The first so many differ; later ones repeat them in turn."""

    def __len__(self) -> int:
        return len(self.captions)


def heldout_clips(
    path_by_cluster: Sequence[Path], model: ModelSpec, count: int, seed: int
) -> RealClips:
    """`count` held-out clips in seeded order over all clusters; when there are fewer, each comes again in turn.

    Raises LocalError for a missing file, MalformedBytes for one that is not of this model's geometry.
    """
    shards = [_checked(path, model) for path in path_by_cluster]
    labels = list(range(len(shards)))
    return _taken(shards, labels, order(seed, _total(shards), 0, count))


def floor_and_fit_clips(
    paths_by_cluster: Sequence[Sequence[Path]], model: ModelSpec, count: int, seed: int
) -> tuple[RealClips, RealClips]:
    """Up to `count` public clips for the floor and as many others for the PCA; only as many shards are read as needed.

    Raises LocalError when there are fewer than two clips, else as heldout_clips.
    """
    shards, labels = _enough_shards(paths_by_cluster, model, 2 * count)
    total = _total(shards)
    if total < 2:
        raise LocalError(
            f"{total} public clips; an evaluation needs some for its floor and its PCA"
        )
    half = min(count, total // 2)
    picked = order(seed, total, 0, 2 * half)
    return _taken(shards, labels, picked[:half]), _taken(shards, labels, picked[half:])


def _enough_shards(
    paths_by_cluster: Sequence[Sequence[Path]], model: ModelSpec, wanted: int
) -> tuple[list[Shard], list[int]]:
    """The first shard of every cluster, then the second of each, until there are enough clips."""
    shards: list[Shard] = []
    labels: list[int] = []
    for place in range(max((len(paths) for paths in paths_by_cluster), default=0)):
        for k, paths in enumerate(paths_by_cluster):
            if place < len(paths):
                shards.append(_checked(paths[place], model))
                labels.append(k)
        if _total(shards) >= wanted:
            break
    return shards, labels


def _checked(path: Path, model: ModelSpec) -> Shard:
    if not path.is_file():
        raise LocalError(f"{path} is missing; prepare the data again, or download it again")
    shard, text = read_shard(path), model.text
    if shard.clips.dtype != np.uint8:
        raise LocalError(
            f"{path.name} holds latents; prepare the same videos without --vae to measure on pixels"
        )
    found = (shard.clips.shape[1:], shard.text.tokens.shape[1:])
    wanted = (
        (3, *model.pixels),
        (text.max_tokens, text.dim),
    )
    if found != wanted:
        raise MalformedBytes(
            f"{path.name} holds clips {found[0]} with text {found[1]}; this release needs {wanted[0]} with {wanted[1]}"
        )
    return shard


def _total(shards: Sequence[Shard]) -> int:
    return sum(len(shard) for shard in shards)


def _taken(shards: Sequence[Shard], labels: Sequence[int], indices: Sequence[int]) -> RealClips:
    """Clips by their index over all shards in turn."""
    starts = np.cumsum([0, *(len(shard) for shard in shards)])
    places = (np.searchsorted(starts, indices, side="right") - 1).tolist()
    pixels, captions, rows = [], [], []
    for place, index in zip(places, indices, strict=True):
        shard, row = shards[place], index - int(starts[place])
        caption = int(shard.caption_index[row])
        pixels.append(shard.clips[row].transpose(1, 2, 3, 0))
        captions.append(shard.captions[caption])
        text = shard.text
        rows.append((text.tokens[caption], text.mask[caption], text.pooled[caption]))
    tokens, mask, pooled = zip(*rows, strict=True)
    return RealClips(
        pixels=np.stack(pixels),
        captions=captions,
        text=TextBatch(np.stack(tokens), np.stack(mask), np.stack(pooled)),
        clusters=[labels[place] for place in places],
        num_distinct=min(len(captions), _total(shards)),
    )
