"""What captions and pictures become before clustering, in files that an interrupted run goes on with. Owns those files.

Rows are functions of what precedes them in order, so a file's length says what is done.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.cluster import TEXT_WEIGHT
from kinoswarm_model.data.collecting import Collected
from kinoswarm_model.data.engine import Engine, Work
from kinoswarm_model.data.features import PictureFeatures
from kinoswarm_model.data.row_file import RowFile, Rows
from kinoswarm_model.data.text import MAX_TOKENS, TextBatch, TextEncoder

Progress = Callable[[int, int, str], None]

_TEXTS_AT_ONCE = 64
_CLIPS_AT_ONCE = 32
_MOST_BATCHES = 8
"""In one task of an engine: seconds of work."""


@dataclass(frozen=True)
class Texts:
    """The embeddings of U distinct captions."""

    row_by_caption: dict[str, int]
    tokens: RowFile[np.float16]
    mask: RowFile[np.uint8]
    pooled: RowFile[np.float16]

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self.pooled.shape[0]

    def batch(self, captions: Sequence[str]) -> TextBatch:
        """The embeddings of these captions, in their order."""
        rows = [self.row_by_caption[caption] for caption in captions]
        return TextBatch(self.tokens.take(rows), self.mask.take(rows), self.pooled.take(rows))


def embed_captions(
    captions: Sequence[str],
    encoder_dir: Path | None,
    folder: Path,
    report: Progress,
    engine: Engine,
) -> Texts:
    """Embed every distinct caption once."""
    import torch

    distinct = sorted(set(captions))
    report(0, len(distinct), "embedding captions")
    encoder = TextEncoder.load(encoder_dir)
    tokens: RowFile[np.float16] = RowFile(folder / "tokens", np.float16, (MAX_TOKENS, encoder.dim))
    mask: RowFile[np.uint8] = RowFile(folder / "mask", np.uint8, (MAX_TOKENS,))
    pooled: RowFile[np.float16] = RowFile(folder / "pooled", np.float16, (encoder.dim,))
    # Whole batches only: what is padded together must not depend on where the last run stopped.
    done = min(len(tokens), len(mask), len(pooled)) // _TEXTS_AT_ONCE * _TEXTS_AT_ONCE
    for rows in (tokens, mask, pooled):
        rows.truncate(done)
    starts = range(done, len(distinct), _TEXTS_AT_ONCE)
    work: Work[list[str], TextBatch] = Work(
        run=encoder.encode,
        load=functools.partial(_text_embedding, encoder_dir),
        threads=torch.get_num_threads(),
        most_at_once=_MOST_BATCHES,
    )
    batches = (distinct[start : start + _TEXTS_AT_ONCE] for start in starts)
    for batch in engine.map(work, batches):
        tokens.append(batch.tokens)
        mask.append(batch.mask)
        pooled.append(batch.pooled)
        report(len(pooled), len(distinct), "embedding captions")
    return Texts({caption: row for row, caption in enumerate(distinct)}, tokens, mask, pooled)


def _text_embedding(encoder_dir: Path | None) -> Callable[[list[str]], TextBatch]:
    return TextEncoder.load(encoder_dir).encode


def clip_points(
    collected: Collected,
    texts: Texts,
    features_dir: Path | None,
    path: Path,
    report: Progress,
    engine: Engine,
) -> RowFile[np.float32]:
    """Every clip as a point to cluster: its pictures' unit vector beside its caption's."""
    network = PictureFeatures.load(features_dir)
    clips = collected.clips
    points: RowFile[np.float32] = RowFile(path, np.float32, (network.dim + texts.dim,))
    points.truncate(len(points) // _CLIPS_AT_ONCE * _CLIPS_AT_ONCE)
    work: Work[Rows[np.uint8], NDArray[np.float32]] = Work(
        run=functools.partial(_pictures, network),
        load=functools.partial(_picture_embedding, features_dir),
        most_at_once=_MOST_BATCHES,
    )
    for pictures in engine.map(work, clips.parts(_CLIPS_AT_ONCE, len(points))):
        start = len(points)
        spoken = collected.captions[start : start + len(pictures)]
        points.append(_joined(pictures, texts, spoken))
        report(len(points), len(clips), "extracting features")
    return points


def _pictures(network: PictureFeatures, rows: Rows[np.uint8]) -> NDArray[np.float32]:
    return network.of(rows.read())


def _picture_embedding(
    features_dir: Path | None,
) -> Callable[[Rows[np.uint8]], NDArray[np.float32]]:
    return functools.partial(_pictures, PictureFeatures.load(features_dir))


def _joined(
    pictures: NDArray[np.float32], texts: Texts, captions: Sequence[str]
) -> NDArray[np.float32]:
    pooled = texts.pooled.take([texts.row_by_caption[caption] for caption in captions])
    return np.concatenate([pictures, TEXT_WEIGHT * pooled.astype(np.float32)], axis=1)
