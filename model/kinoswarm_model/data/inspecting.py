"""What a prepared folder holds, for people and programs: sizes, words and pictures of clusters. Owns what is shown.

Shards are read one at a time, and of their clips only those that are shown.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from kinoswarm_model.data.data_manifest import Clip, DataCluster, read_manifest
from kinoswarm_model.data.errors import DataError
from kinoswarm_model.data.labels import telling_words
from kinoswarm_model.data.shards import Shard, read_shard
from kinoswarm_model.frame_strips import write_png
from kinoswarm_model.lettering import shortened, typeface

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_WORDS = 8
_MOST_CAPTIONS_COUNTED = 100_000
"""Distinct captions of a cluster whose words are counted: bounds the memory for captions that never repeat."""

_CLIPS_SHOWN = 10
_SIDE, _GAP, _MARGIN, _LINE, _SIZE = 96, 4, 24, 26, 15
_ROW = _LINE + _SIDE + 3 * _GAP
_PAPER, _INK = (250, 249, 246), (28, 30, 34)


class WordShare(Struct, frozen=True, forbid_unknown_fields=True):
    """A word and the share of the cluster's clips whose caption has it."""

    word: str
    share: float


class ClusterView(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cluster."""

    label: str
    clips: int
    """To train on."""
    heldout: int
    shards: int
    size_bytes: int
    """Of the shards."""
    captions: int
    """Distinct ones, shard by shard."""
    words: list[WordShare]


class DataView(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A prepared folder."""

    folder: str
    clip: Clip
    sources: int
    clips: int
    size_bytes: int
    largest_by_mean: float
    """Clips of the largest cluster by the mean of all: 1 is perfectly balanced."""
    left_out: dict[str, int]
    clusters: list[ClusterView]


def inspect_data(folder: Path) -> DataView:
    """Look at every shard. Raises DataError without a manifest, MalformedBytes for a damaged shard."""
    manifest = read_manifest(folder)
    clusters = [_cluster_view(folder, cluster) for cluster in manifest.clusters]
    sizes = [view.clips + view.heldout for view in clusters]
    return DataView(
        folder=str(folder),
        clip=manifest.clip,
        sources=manifest.num_sources,
        clips=sum(sizes),
        size_bytes=sum(view.size_bytes for view in clusters),
        largest_by_mean=max(sizes) * len(sizes) / max(1, sum(sizes)),
        left_out=manifest.left_out,
        clusters=clusters,
    )


def write_cluster_sheet(path: Path, folder: Path) -> None:
    """A PNG with a row for every cluster: its label, and the middle frames of clips spread over its shards."""
    from PIL import Image, ImageDraw

    clusters = read_manifest(folder).clusters
    width = 2 * _MARGIN + _CLIPS_SHOWN * (_SIDE + _GAP) - _GAP
    image = Image.new("RGB", (width, 2 * _MARGIN + len(clusters) * _ROW), _PAPER)
    draw = ImageDraw.Draw(image)
    for index, cluster in enumerate(clusters):
        top = _MARGIN + index * _ROW
        said = f"{index}. {cluster.label}: {cluster.num_clips} clips"
        line = shortened(said, width - 2 * _MARGIN, _SIZE)
        draw.text((_MARGIN, top), line, fill=_INK, font=typeface(_SIZE))
        for column, frame in enumerate(_shown_frames(folder, cluster)):
            left = _MARGIN + column * (_SIDE + _GAP)
            image.paste(_fitted(frame), (left, top + _LINE))
    write_png(path, image)


def _fitted(frame: NDArray[np.uint8]) -> "Image":
    """A picture that fills a square of _SIDE one way; pixels are repeated, not smoothed, when it is smaller."""
    from PIL import Image

    picture = Image.fromarray(frame)
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)


def _shown_frames(folder: Path, cluster: DataCluster) -> Iterator[NDArray[np.uint8]]:
    """Middle frames, (H, W, 3)."""
    starts = np.cumsum([0, *(shard.num_clips for shard in cluster.shards)])
    for clip in np.unique(np.linspace(0, starts[-1] - 1, _CLIPS_SHOWN).round().astype(int)):
        number = int(np.searchsorted(starts, clip, side="right")) - 1
        shard = read_shard(folder / cluster.shards[number].path)
        pixels_CTHW = shard.clips[clip - starts[number]]
        if pixels_CTHW.dtype != np.uint8:
            raise DataError("these shards hold latents, which are no pictures; leave the sheet out")
        yield np.ascontiguousarray(pixels_CTHW[:, pixels_CTHW.shape[1] // 2].transpose(1, 2, 0))


def _cluster_view(folder: Path, cluster: DataCluster) -> ClusterView:
    words: Counter[str] = Counter()
    captions = counted = 0
    for file in cluster.shards:
        shard = read_shard(folder / file.path)
        captions += len(shard.captions)
        if captions <= _MOST_CAPTIONS_COUNTED or not counted:
            counted += len(shard)
            words.update(_words(shard))
    return ClusterView(
        label=cluster.label,
        clips=cluster.num_clips,
        heldout=cluster.heldout.num_clips,
        shards=len(cluster.shards),
        size_bytes=sum(file.size_bytes for file in cluster.shards),
        captions=captions,
        words=[WordShare(word, count / counted) for word, count in _most(words)],
    )


def _most(words: "Counter[str]") -> list[tuple[str, int]]:
    return sorted(words.items(), key=lambda item: (-item[1], item[0]))[:_MOST_WORDS]


def _words(shard: Shard) -> "Counter[str]":
    """In how many of the shard's clips each telling word is said."""
    found: Counter[str] = Counter()
    counts = np.bincount(shard.caption_index, minlength=len(shard.captions))
    for caption, count in zip(shard.captions, counts.tolist(), strict=True):
        found.update(dict.fromkeys(telling_words(caption), count))
    return found
