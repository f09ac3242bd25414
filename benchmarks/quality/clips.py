"""The clips of the comparison: filmed, captioned, split and clustered, kept in one folder. Owns the files there.

Every place gives clips to four parts, in the order in which they were filmed: training, held-out (whose captions are
generated and whose pixels are compared with), floor (other real clips), and fit (the PCA, the clusters).
Shapes: N clips, C channels, T frames, H height, W width, U captions, L tokens, D text width, K clusters.
"""

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from benchmarks.quality.places import PLACES
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kinoswarm_model.clip_codecs import Decode, pixels_of
from kinoswarm_model.data import filming
from kinoswarm_model.data.cluster import TEXT_WEIGHT, assign_clusters
from kinoswarm_model.data.features import PictureFeatures
from kinoswarm_model.data.scenes import Scene, View
from kinoswarm_model.data.text import TextEncoder
from kinoswarm_model.sampler import TextBatch

_BETWEEN_CLAUSES = " in "
_TOKENS_READ = 32
_FILMED_HEIGHT, _FILMED_WIDTH = 24, 32
PARTS = ("training", "heldout", "floor", "fit")


@dataclass(frozen=True, kw_only=True)
class FilmPlan:
    """What is filmed. The same plan gives the same clips."""

    frames: int = 8
    shrink: int = 2
    """Clips are filmed at 24x32 and averaged down by this factor."""
    counts: tuple[int, int, int, int] = (160, 32, 32, 32)
    """Clips of a place for each of PARTS."""
    places: int = len(PLACES)
    """The first so many."""
    seed: int = 0
    view: View | None = None
    """None looks anywhere near a place's start."""

    @property
    def tokens(self) -> int:
        """Of a caption: one is its pooled embedding, for a longer text would cost more than the video at these sizes.

        Captions of views are two, for what the camera does and for where: from one nobody learnt its direction.
        """
        return 1 if self.view is None else 2

    @property
    def height(self) -> int:
        """Pixels."""
        return _FILMED_HEIGHT // self.shrink

    @property
    def width(self) -> int:
        """Pixels."""
        return _FILMED_WIDTH // self.shrink

    @property
    def name(self) -> str:
        """Folder of this plan's films, whatever they are shrunk to."""
        counts = "-".join(map(str, self.counts))
        size = f"{self.frames}x{_FILMED_HEIGHT}x{_FILMED_WIDTH}"
        view = f"-{self.view.spread_degrees:g}x{self.view.most_tics}" if self.view else ""
        return f"{self.places}x{counts}-{size}-{self.seed}{view}"


@dataclass(frozen=True)
class Clips:
    """N captioned clips."""

    pixels: NDArray[np.uint8]
    """(N, C, T, H, W)"""
    captions: list[str]
    place: NDArray[np.int64]
    """(N,) index into PLACES."""
    motion: NDArray[np.int64]
    """(N,) index into filming.MOTIONS."""
    text: TextBatch
    """A row for every distinct caption, U in all."""
    text_row: NDArray[np.int64]
    """(N,) row of `text`."""
    latents: NDArray[np.float32] | None = None
    """(N, K, T', H', W') what networks see instead of pixels, where a codec was fitted."""

    def __len__(self) -> int:
        return len(self.pixels)

    def x_0(self, rows: Tensor) -> Tensor:
        """What networks learn to make: latents, or pixels in -1..1; float32, shape (B, C, T, H, W)."""
        if self.latents is not None:
            return torch.from_numpy(self.latents[rows.numpy()])
        return torch.from_numpy(self.pixels[rows.numpy()]).float().div_(127.5).sub_(1.0)

    def text_of(self, rows: Tensor) -> TextBatch:
        """Text of these clips."""
        index = torch.from_numpy(self.text_row)[rows]
        return TextBatch(
            tokens_BLD=self.text.tokens_BLD[index],
            mask_BL=self.text.mask_BL[index],
            pooled_BD=self.text.pooled_BD[index],
        )

    def only(self, rows: NDArray[np.int64]) -> "Clips":
        """These clips."""
        return replace(
            self,
            pixels=self.pixels[rows],
            captions=[self.captions[row] for row in rows],
            place=self.place[rows],
            motion=self.motion[rows],
            text_row=self.text_row[rows],
            latents=None if self.latents is None else self.latents[rows],
        )

    def frames_last(self) -> NDArray[np.uint8]:
        """Pixels of shape (N, T, H, W, C), as features and pictures take them."""
        return np.ascontiguousarray(self.pixels.transpose(0, 2, 3, 4, 1))


@dataclass(frozen=True)
class QualityData:
    """Everything that the comparison reads."""

    training: Clips
    heldout: Clips
    floor: Clips
    fit: Clips
    picture_features: NDArray[np.float32]
    """(fit clips, 1280): what places are clustered by, beside their captions."""
    places: list[str]
    """What captions call them."""
    decode: Decode = pixels_of
    """(B, C, T, H, W) as networks make them to pixels of shape (B, T, H, W, 3)."""

    def cluster_of_place(self, num_clusters: int, seed: int) -> NDArray[np.int64]:
        """(places,) a cluster for every place, whole: that of most of its clips in the two-level balanced k-means."""
        texts = self.fit.text.pooled_BD.numpy()[self.fit.text_row]
        points = _Points(np.concatenate([self.picture_features, TEXT_WEIGHT * texts], axis=1))
        labels = assign_clusters(points, num_clusters, seed)
        votes = [
            Counter(labels[self.fit.place == place].tolist()) for place in range(len(self.places))
        ]
        return np.array([vote.most_common(1)[0][0] for vote in votes], dtype=np.int64)


@dataclass(frozen=True)
class _Points:
    """Vectors in memory, as the clustering reads them."""

    rows: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Sequence[int] | NDArray[np.int64], /) -> NDArray[np.float32]:
        return self.rows[np.asarray(indices)]


def quality_data(folder: Path, plan: FilmPlan, processes: int = 2) -> QualityData:
    """The clips of a plan: read from `folder`, where a first call films them (some minutes at full size)."""
    home = folder / plan.name
    home.mkdir(parents=True, exist_ok=True)
    _film_missing(home, plan, processes)
    scenes = PLACES[: plan.places]
    filmed = [np.load(home / f"{scene.name}.npz") for scene in scenes]
    captions = sorted({str(caption) for shot in filmed for caption in shot["captions"]})
    text = _encoded(captions, plan.tokens)
    bounds = np.cumsum([0, *plan.counts]).tolist()
    parts = [
        _part(filmed, slice(start, stop), plan.shrink, captions, text)
        for start, stop in itertools.pairwise(bounds)
    ]
    training, heldout, floor, fit = parts
    places = [scene.place for scene in scenes]
    return QualityData(training, heldout, floor, fit, _features(home, fit), places)


def _film_missing(home: Path, plan: FilmPlan, processes: int) -> None:
    missing = [s for s in PLACES[: plan.places] if not (home / f"{s.name}.npz").exists()]
    if not missing:
        return
    context = get_context("spawn")
    # A process of its own for every place: what the engine keeps from one map changes the pictures of the next.
    with ProcessPoolExecutor(processes, context, max_tasks_per_child=1) as pool:
        for _ in pool.map(_film_place, missing, [home] * len(missing), [plan] * len(missing)):
            pass


def _film_place(scene: Scene, home: Path, plan: FilmPlan) -> None:
    rng = np.random.default_rng([plan.seed, *scene.name.encode()])
    size = (plan.frames, _FILMED_HEIGHT, _FILMED_WIDTH)
    pixels, captions = [], []
    with filming.stage_at(replace(scene, view=plan.view), plan.seed) as stage:
        for _ in range(sum(plan.counts)):
            clip, caption = filming.film(stage, rng, size)
            pixels.append(clip)
            captions.append(caption)
    _save(home / f"{scene.name}.npz", pixels=np.stack(pixels), captions=np.array(captions))


def _save(path: Path, **arrays: NDArray[np.generic]) -> None:
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)


def _encoded(captions: Sequence[str], tokens: int) -> TextBatch:
    encoder = TextEncoder.load(max_tokens=_TOKENS_READ)

    def pooled(texts: Sequence[str]) -> Tensor:
        return torch.from_numpy(encoder.encode(list(texts)).pooled).float()

    whole_BD = pooled(captions)
    tokens_BLD = whole_BD.unsqueeze(1) * whole_BD.shape[1] ** 0.5
    if tokens > 1:
        clauses = zip(*(caption.split(_BETWEEN_CLAUSES, 1) for caption in captions), strict=True)
        tokens_BLD = torch.stack([_told_apart(pooled(texts)) for texts in clauses], dim=1)
    return TextBatch(
        # Of the size that the encoder's own tokens have, for the same first layer.
        tokens_BLD=tokens_BLD,
        mask_BL=torch.ones(len(captions), tokens, dtype=torch.bool),
        pooled_BD=whole_BD,
    )


def _told_apart(pooled_BD: Tensor) -> Tensor:
    """Less what all captions share, which is most of "turns left" and "turns right"; numbers of variance one."""
    centred_BD = pooled_BD - pooled_BD.unique(dim=0).mean(dim=0)
    return functional.normalize(centred_BD, dim=1) * centred_BD.shape[1] ** 0.5


def _part(
    filmed: Sequence[dict[str, NDArray[np.generic]]],
    rows: slice,
    shrink: int,
    captions: Sequence[str],
    text: TextBatch,
) -> Clips:
    row_by_caption = {caption: row for row, caption in enumerate(captions)}
    own = [[str(caption) for caption in shot["captions"][rows]] for shot in filmed]
    flat = [caption for captions_of_place in own for caption in captions_of_place]
    pixels = _shrunk(np.concatenate([shot["pixels"][rows] for shot in filmed]), shrink)
    return Clips(
        pixels=np.ascontiguousarray(pixels.transpose(0, 4, 1, 2, 3)),
        captions=flat,
        place=np.repeat(np.arange(len(filmed)), [len(captions_of) for captions_of in own]),
        motion=np.array([_motion(caption) for caption in flat], dtype=np.int64),
        text=text,
        text_row=np.array([row_by_caption[caption] for caption in flat], dtype=np.int64),
    )


def _shrunk(pixels_NTHWC: NDArray[np.generic], factor: int) -> NDArray[np.uint8]:
    """Averages of factor x factor pixels."""
    sums = sum(
        pixels_NTHWC[:, :, row::factor, column::factor].astype(np.uint16)
        for row in range(factor)
        for column in range(factor)
    )
    halves = factor * factor // 2
    return ((sums + halves) // (factor * factor)).astype(np.uint8)


def _motion(caption: str) -> int:
    return next(i for i, motion in enumerate(filming.MOTIONS) if motion.words in caption)


def _features(home: Path, fit: Clips) -> NDArray[np.float32]:
    path = home / "picture-features.npz"
    if not path.exists():
        _save(path, features=PictureFeatures.load().of(fit.pixels))
    found: NDArray[np.float32] = np.load(path)["features"]
    return found
