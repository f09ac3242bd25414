"""Prepared data folders of the tiny release's geometry, without decoding anything. Owns nothing that is tested."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
from evaluation.conftest import write_clips
from release.tiny_release import tiny_model, write_tiny_release

from kinoswarm_model import route_job
from kinoswarm_model.data.data_manifest import (
    MANIFEST_NAME,
    Clip,
    DataCluster,
    DataFile,
    DataManifest,
)
from kinoswarm_model.jobs import RouteDone, RouteJob
from kinoswarm_model.presets import TEXT_ENCODER
from kinoswarm_model.release_layout import ROUTER_WEIGHTS


def write_prepared(folder: Path, kinds: Sequence[int]) -> Path:
    """A folder with one cluster for each of these kinds of clips (their brightness and captions)."""
    model = tiny_model()

    def file(name: str, kind: int, count: int, seed: int) -> DataFile:
        path = folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clips(path, kind, count, seed)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return DataFile(path.relative_to(folder).as_posix(), count, path.stat().st_size, digest)

    clusters = [
        DataCluster(
            f"kind {kind}",
            12,
            [file(f"shards/{place}", kind, 12, 2)],
            file(f"heldout/{place}", kind, 6, 1),
        )
        for place, kind in enumerate(kinds)
    ]
    clip = model.clip
    manifest = DataManifest(
        clip=Clip(clip.frames, clip.height, clip.width, clip.fps),
        text_encoder=TEXT_ENCODER,
        text_dim=model.text.dim,
        text_tokens=model.text.max_tokens,
        seed=0,
        num_sources=1,
        left_out={},
        clusters=clusters,
    )
    (folder / MANIFEST_NAME).write_bytes(msgspec.json.encode(manifest))
    return folder


def route(folder: Path, kinds: list[int], **changes: object) -> RouteDone:
    """A router for such clusters, trained for a moment."""
    data = write_prepared(folder / "".join(map(str, kinds)), kinds)
    job: dict[str, object] = {
        "job_id": "r",
        "model": tiny_model(),
        "work_dir": str(folder / f"work-{kinds}-{changes.get('steps')}-{len(changes)}"),
        "shard_paths_by_cluster": [
            [str(data / f"shards/{k}.safetensors")] for k in range(len(kinds))
        ],
        "heldout_paths": [str(data / f"heldout/{k}.safetensors") for k in range(len(kinds))],
        "steps": 40,
        "seed": 1,
    }
    return route_job.run(RouteJob(**{**job, **changes}), lambda progress: None)  # type: ignore[arg-type]


def write_routed_release(folder: Path, **changes: object) -> Path:
    """The tiny release with a router that tells clusters of kinds 0 and 1 apart."""
    done, _ = write_tiny_release(folder / "release", **changes)
    trained = route(folder, [0, 1])
    (Path(done.release_dir) / ROUTER_WEIGHTS).write_bytes(Path(trained.router_path).read_bytes())
    return Path(done.release_dir)
