"""From a folder of captioned videos to shards, held-out parts and a manifest. Owns the order of the steps.

The manifest is written last and atomically: a folder with a manifest is complete, one without is prepared again from
the start. The same input and seed give the same bytes.
"""

import errno
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.cluster import assign_clusters
from kinoswarm_model.data.data_manifest import (
    MANIFEST_NAME,
    Clip,
    DataCluster,
    DataFile,
    DataManifest,
    read_manifest,
)
from kinoswarm_model.data.decode import Geometry, decode_clips
from kinoswarm_model.data.errors import DataError, NoSpaceLeft, UnreadableVideo
from kinoswarm_model.data.features import clip_features
from kinoswarm_model.data.labels import cluster_labels
from kinoswarm_model.data.shards import Shard, make_shard, write_shard
from kinoswarm_model.data.sources import Sources, find_sources
from kinoswarm_model.data.text import DEFAULT_ENCODER, MAX_TOKENS, TEXT_DIM, TextBatch, TextEncoder

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How to prepare; every field is part of what makes two runs equal."""

    num_clusters: int = 4
    frames: int = 8
    height: int = 32
    width: int = 32
    fps: int = 8
    heldout_fraction: float = 0.1
    min_heldout: int = 1
    """Held-out clips per cluster at least, as far as the cluster has two."""
    clips_per_video: int = 64
    shard_clips: int = 512
    seed: int = 0
    text_encoder_dir: Path | None = None
    """None: the installed all-MiniLM-L6-v2."""


@dataclass(frozen=True)
class _Collected:
    """Decoded clips (N, C, T, H, W) with their captions; what could not be used, by reason."""

    clips: NDArray[np.uint8]
    captions: list[str]
    left_out: "Counter[str]"
    num_sources: int


def prepare(
    source: Path, out: Path, config: PrepareConfig, progress: Progress | None = None
) -> DataManifest:
    """Prepare `source` into `out`; returns at once when `out` is complete already.

    Raises DataError (no usable clip, fewer clips than clusters, …) or NoSpaceLeft; nothing half-written is visible.
    """
    if (out / MANIFEST_NAME).is_file():
        return read_manifest(out)
    report = progress or (lambda done, total, what: None)
    building = out.with_name(f".{out.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        manifest = _prepare(source, building, config, report)
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            out.rmdir()
        os.replace(building, out)
    except OSError as error:
        raise _explained(error, out) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return manifest


def _explained(error: OSError, out: Path) -> DataError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceLeft(f"no space left for {out}; free some and run the same command again")
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
        return DataError(f"{out} holds other files; choose an empty or new folder")
    return DataError(f"{out}: {error.strerror or error}; check the folder and its permissions")


def _prepare(source: Path, out: Path, config: PrepareConfig, report: Progress) -> DataManifest:
    collected = _collect(find_sources(source), config, report)
    if len(collected.clips) < config.num_clusters:
        assign_clusters(np.zeros((len(collected.clips), 1), np.float32), config.num_clusters, 0)
    features = clip_features(collected.clips, report)
    labels = assign_clusters(features, config.num_clusters, config.seed)
    distinct = sorted(set(collected.captions))
    report(0, 1, "embedding captions")
    text = TextEncoder.load(config.text_encoder_dir).encode(distinct)
    report(1, 1, "embedding captions")
    row_by_caption = {caption: row for row, caption in enumerate(distinct)}
    clusters = _write_clusters(out, collected, labels, (row_by_caption, text), config)
    manifest = DataManifest(
        clip=Clip(config.frames, config.height, config.width, config.fps),
        text_encoder=config.text_encoder_dir.name if config.text_encoder_dir else DEFAULT_ENCODER,
        text_dim=TEXT_DIM,
        text_tokens=MAX_TOKENS,
        seed=config.seed,
        num_sources=collected.num_sources,
        left_out=dict(sorted(collected.left_out.items())),
        clusters=clusters,
    )
    raw = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (out / MANIFEST_NAME).write_bytes(raw)
    return manifest


def _collect(sources: Sources, config: PrepareConfig, report: Progress) -> _Collected:
    """Decode every usable source, in order."""
    geometry = Geometry(
        frames=config.frames, height=config.height, width=config.width, fps=config.fps
    )
    clips: list[NDArray[np.uint8]] = []
    captions: list[str] = []
    left_out = Counter(sources.left_out)
    last_problem: UnreadableVideo | None = None
    for index, source in enumerate(sources.usable, start=1):
        try:
            for clip in decode_clips(source.path, geometry, config.clips_per_video):
                clips.append(clip.transpose(3, 0, 1, 2))
                captions.append(source.caption)
        except UnreadableVideo as error:
            left_out[error.reason] += 1
            last_problem = error
        report(index, len(sources.usable), "decoding videos")
    if not clips:
        raise DataError(f"no clip could be made of {len(sources.usable)} videos") from last_problem
    return _Collected(np.stack(clips), captions, left_out, len(sources.usable))


def _write_clusters(
    out: Path,
    collected: _Collected,
    labels: NDArray[np.int64],
    embedded: tuple[dict[str, int], TextBatch],
    config: PrepareConfig,
) -> list[DataCluster]:
    (out / "shards").mkdir()
    (out / "heldout").mkdir()
    rng = np.random.default_rng(config.seed)
    names = cluster_labels(collected.captions, labels, config.num_clusters)
    clusters = []
    for cluster, name in enumerate(names):
        members = rng.permutation(np.flatnonzero(labels == cluster))
        num_heldout = _num_heldout(len(members), config)

        def shard_of(indices: NDArray[np.int64]) -> Shard:
            captions = [collected.captions[i] for i in indices]
            return make_shard(collected.clips[indices], captions, *embedded)

        heldout = _write(out, f"heldout/cluster-{cluster:02d}", shard_of(members[:num_heldout]))
        training = members[num_heldout:]
        shards = [
            _write(
                out,
                f"shards/cluster-{cluster:02d}-shard-{number:03d}",
                shard_of(training[start : start + config.shard_clips]),
            )
            for number, start in enumerate(range(0, len(training), config.shard_clips))
        ]
        clusters.append(DataCluster(name, len(training), shards, heldout))
    return clusters


def _num_heldout(num_clips: int, config: PrepareConfig) -> int:
    if num_clips < 2:
        raise DataError(
            "a cluster has one clip, so none can be held out; add videos or ask for fewer clusters"
        )
    wanted = max(config.min_heldout, round(num_clips * config.heldout_fraction))
    return min(wanted, num_clips - 1)


def _write(out: Path, stem: str, shard: Shard) -> DataFile:
    path = out / f"{stem}.safetensors"
    write_shard(path, shard)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return DataFile(f"{stem}.safetensors", len(shard), path.stat().st_size, digest)
