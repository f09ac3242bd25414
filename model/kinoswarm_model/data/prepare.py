"""From a folder of captioned videos to shards, held-out parts and a manifest. Owns the order of the steps.

The manifest is written last and the folder appears by one rename: a folder with a manifest is complete. What a kill
leaves behind is hidden; the same call goes on with it, another one clears it. The same input and seed give the same
bytes.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.atomic_file import write_atomically
from kinoswarm_model.data.cluster import assign_clusters, require_enough_clips
from kinoswarm_model.data.collecting import Collected, collect
from kinoswarm_model.data.cutting import Cutting
from kinoswarm_model.data.data_manifest import (
    MANIFEST_NAME,
    VAE_FOLDER,
    Clip,
    DataCluster,
    DataFile,
    DataManifest,
    read_manifest,
)
from kinoswarm_model.data.decode import Geometry
from kinoswarm_model.data.embedding import Texts, clip_points, embed_captions
from kinoswarm_model.data.engine import Engine, LocalEngine
from kinoswarm_model.data.errors import DataError, explained
from kinoswarm_model.data.labels import cluster_labels
from kinoswarm_model.data.latents import Latents, encode_clips
from kinoswarm_model.data.row_file import RowFile
from kinoswarm_model.data.shards import Shard, make_shard, write_shard
from kinoswarm_model.data.sources import Sources, find_sources
from kinoswarm_model.data.splitting import HeldOut, split
from kinoswarm_model.data.text import DEFAULT_ENCODER, MAX_TOKENS
from kinoswarm_protocol.limits import MAX_CLIP_VALUES, MAX_CLUSTERS, MAX_SHARDS_PER_CLUSTER

Progress = Callable[[int, int, str], None]

_WORK = ".work"
"""Holds what an interrupted run goes on with."""
_RESUMES = "fingerprint"


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How to prepare; every field is part of what makes two runs equal."""

    num_clusters: int = 4
    """Experts to train, at least 1."""
    frames: int = 8
    """Per clip."""
    height: int = 32
    """Pixels."""
    width: int = 32
    """Pixels."""
    fps: int = 8
    """Frames a second that clips are sampled at."""
    heldout_fraction: float = 0.1
    """Share of every cluster that stays private, above 0 and at most 0.5."""
    min_heldout: int = 1
    """Held-out clips per cluster at least, as far as the cluster has one more."""
    clips_per_video: int = 64
    """The beginning of longer videos is used."""
    shard_clips: int = 512
    """Clips in one shard file at most."""
    seed: int = 0
    """At least 0."""
    text_encoder_dir: Path | None = None
    """None: the installed all-MiniLM-L6-v2."""
    captions_table: Path | None = None
    """CSV, JSONL or Parquet; None: the one in the source folder, if there is one."""
    features_dir: Path | None = None
    """Folder of DINOv2 weights; None: the installed EfficientNet-Lite0."""
    vae_dir: Path | None = None
    """Folder of a diffusers video VAE; None: shards hold pixels."""

    def __post_init__(self) -> None:
        bounds = {
            "num_clusters": (1, MAX_CLUSTERS),
            "frames": (1, 1_024),
            "height": (8, 4_320),
            "width": (8, 8_192),
            "fps": (1, 240),
            "heldout_fraction": (1e-6, 0.5),
            "min_heldout": (1, 1_000_000),
            "clips_per_video": (1, 1_000_000),
            "shard_clips": (1, 1_000_000),
            "seed": (0, 2**32 - 1),
        }
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise DataError(f"{name} is {value}; {least} to {most} is allowed")
        if 3 * self.frames * self.height * self.width > MAX_CLIP_VALUES:
            raise DataError("frames x height x width is too large; make one of them smaller")

    @property
    def geometry(self) -> Geometry:
        return Geometry(frames=self.frames, height=self.height, width=self.width, fps=self.fps)

    @property
    def encoder_name(self) -> str:
        return self.text_encoder_dir.resolve().name if self.text_encoder_dir else DEFAULT_ENCODER


def prepare(
    source: Path,
    out: Path,
    config: PrepareConfig,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> DataManifest:
    """Prepare `source` into `out`; returns at once when `out` holds just that already. The engine changes no byte.

    Raises DataError (no usable clip, too few clips, `out` holds something else, …) or NoSpaceLeft; nothing
    half-written is visible. After a crash or an EngineError the same call goes on, with any engine.
    """
    engine = engine or LocalEngine()
    source, out, config = source.absolute(), out.resolve(), _absolute(config)
    building = out.with_name(f".{out.name}.part")
    try:
        sources = find_sources(source, config.captions_table)
        fingerprint = _fingerprint(sources, config)
        if (out / MANIFEST_NAME).is_file():
            return _same(read_manifest(out), fingerprint, out)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out} holds other files; choose an empty or new folder")
        _open_work(building, fingerprint)
        engine.require_seen(_named_files(sources, config), building / _WORK)
        manifest = _prepare(sources, building, config, progress or _silent, fingerprint, engine)
        _publish(building, out)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        raise explained(error, out) from error
    except DataError:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return manifest


def _absolute(config: PrepareConfig) -> PrepareConfig:
    """With folders that other processes find too."""
    names = ("text_encoder_dir", "features_dir", "vae_dir")
    folders = {name: getattr(config, name) for name in names}
    return replace(config, **{name: path.absolute() for name, path in folders.items() if path})


def _named_files(sources: Sources, config: PrepareConfig) -> list[Path]:
    """A few of the files that an engine reads: the first and the last video, and the models'."""
    folders = (config.text_encoder_dir, config.features_dir, config.vae_dir)
    models = [path for folder in folders if folder for path in sorted(folder.iterdir())]
    videos = {sources.usable[0].path, sources.usable[-1].path}
    return [*sorted(videos), *(path for path in models if path.is_file())]


def _open_work(building: Path, fingerprint: str) -> None:
    """An empty folder to build in, or the one that an interrupted run of the same call left."""
    marker = building / _WORK / _RESUMES
    if not marker.is_file() or marker.read_text() != fingerprint:
        shutil.rmtree(building, ignore_errors=True)
        marker.parent.mkdir(parents=True)
        write_atomically(marker, fingerprint.encode())
    for folder in ("shards", "heldout"):
        shutil.rmtree(building / folder, ignore_errors=True)


def _silent(done: int, total: int, what: str) -> None:
    return


def _fingerprint(sources: Sources, config: PrepareConfig) -> str:
    settings = asdict(config) | {"text_encoder_dir": config.encoder_name}
    settings["captions_table"] = None  # the captions are part of the sources' fingerprint
    settings["features_dir"] = config.features_dir.resolve().name if config.features_dir else None
    settings["vae_dir"] = _vae_fingerprint(config.vae_dir) if config.vae_dir else None
    raw = msgspec.json.encode([sources.fingerprint(), settings])
    return hashlib.sha256(raw).hexdigest()


def _vae_fingerprint(folder: Path) -> str:
    from kinoswarm_model.vae import CONFIG, WEIGHTS, vae_folder

    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        with (vae_folder(folder) / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _same(manifest: DataManifest, fingerprint: str, out: Path) -> DataManifest:
    if manifest.fingerprint == fingerprint:
        return manifest
    raise DataError(
        f"{out} was prepared from other videos or with other settings; choose a new folder, or delete this one"
    )


def _publish(building: Path, out: Path) -> None:
    """The finished folder appears under its name at once; an empty folder there is replaced."""
    if out.is_dir():
        out.rmdir()
    os.replace(building, out)
    descriptor = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepare(
    sources: Sources,
    out: Path,
    config: PrepareConfig,
    report: Progress,
    fingerprint: str,
    engine: Engine,
) -> DataManifest:
    work = out / _WORK
    cutting = Cutting(geometry=config.geometry, clips_per_video=config.clips_per_video)
    collected = collect(sources, cutting, work, report, engine)
    captions = collected.captions
    require_enough_clips(len(captions), config.num_clusters)
    texts = embed_captions(captions, config.text_encoder_dir, work, report, engine)
    points = clip_points(collected, texts, config.features_dir, work / "points", report, engine)
    labels = assign_clusters(points, config.num_clusters, config.seed)
    latents = None
    if config.vae_dir:
        latents = _latents(collected.clips, config.vae_dir, out, report, engine)
    clips: Taken = collected.clips if latents is None else latents
    clusters = _write_clusters(out, collected, clips, labels, texts, config, report)
    shutil.rmtree(work)
    manifest = DataManifest(
        clip=Clip(config.frames, config.height, config.width, config.fps),
        text_encoder=config.encoder_name,
        text_dim=texts.dim,
        text_tokens=MAX_TOKENS,
        seed=config.seed,
        num_sources=collected.num_sources,
        left_out=dict(sorted(collected.left_out.items())),
        clusters=clusters,
        vae=latents.spec if latents else None,
        latents=latents.grid if latents else (0, 0, 0),
        fingerprint=fingerprint,
    )
    raw = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    write_atomically(out / MANIFEST_NAME, raw + b"\n")
    return manifest


class Taken(Protocol):
    """Clips by index: pixels or latents."""

    def take(self, indices: NDArray[np.int64]) -> NDArray[Any]: ...


def _latents(
    clips: RowFile[np.uint8], vae_dir: Path, out: Path, report: Progress, engine: Engine
) -> Latents:
    """Encode all clips, and keep the VAE beside them: whoever founds a swarm on them needs it."""
    from kinoswarm_model.vae import CONFIG, WEIGHTS, vae_folder

    folder = vae_folder(vae_dir)
    latents = encode_clips(clips, folder, out / _WORK / "latents", report, engine)
    (out / VAE_FOLDER).mkdir(exist_ok=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(folder / name, out / VAE_FOLDER / name)
    return latents


def _write_clusters(
    out: Path,
    collected: Collected,
    clips: Taken,
    labels: NDArray[np.int64],
    texts: Texts,
    config: PrepareConfig,
    report: Progress,
) -> list[DataCluster]:
    (out / "shards").mkdir()
    (out / "heldout").mkdir()
    rng = np.random.default_rng(config.seed)
    rule = HeldOut(fraction=config.heldout_fraction, least=config.min_heldout)
    names = cluster_labels(collected.captions, labels, config.num_clusters)

    def write(stem: str, indices: NDArray[np.int64]) -> DataFile:
        captions = [collected.captions[i] for i in indices]
        distinct = sorted(set(captions))
        rows = {caption: row for row, caption in enumerate(distinct)}
        return _write(
            out, stem, make_shard(clips.take(indices), captions, rows, texts.batch(distinct))
        )

    clusters = []
    for k, name in enumerate(names):
        members = np.flatnonzero(labels == k)
        heldout, training = split(members, collected.video_of_clip, rule, rng)
        kept = write(f"heldout/cluster-{k:02d}", heldout)
        shards = [
            write(f"shards/cluster-{k:02d}-shard-{number:03d}", part)
            for number, part in enumerate(_parts(training, config.shard_clips))
        ]
        clusters.append(DataCluster(name, len(training), shards, kept))
        report(k + 1, len(names), "writing shards")
    return clusters


def _parts(indices: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    parts = [indices[start : start + size] for start in range(0, len(indices), size)]
    if len(parts) > MAX_SHARDS_PER_CLUSTER:
        raise DataError(
            f"{len(parts)} shards in one cluster, {MAX_SHARDS_PER_CLUSTER} are allowed; "
            "raise shard_clips or ask for more clusters"
        )
    return parts


def _write(out: Path, stem: str, shard: Shard) -> DataFile:
    path = out / f"{stem}.safetensors"
    write_shard(path, shard)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return DataFile(f"{stem}.safetensors", len(shard), path.stat().st_size, digest)
