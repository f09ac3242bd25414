"""Runs one generation with a progress bar and writes the clips. Owns files and words; kinoswarm_model samples."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from kinoswarm_cli.progress_bars import Report, reporting
from kinoswarm_model.generate import DtypeName, GenerateConfig, check_request
from kinoswarm_network.durable import disk_errors, require_space
from kinoswarm_protocol.errors import LocalError

if TYPE_CHECKING:
    from kinoswarm_model.release_reader import Release

_PICTURE = ".png"
_CLIP_ROOM_BYTES = 16 * 1024 * 1024
"""More than an mp4 of the largest preset takes."""


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """What the person asked for; None takes the recipe's own value."""

    prompts: list[str]
    model: Path
    out: Path
    seed: int
    steps: int | None
    guidance: float | None
    top_k: int | None
    threshold: float | None
    num: int
    scale: int
    frames: int | None
    device: str
    dtype: str
    experts_in_memory: int
    allow_missing_experts: bool
    as_json: bool


def run_generate(request: GenerateRequest) -> None:
    """Write the clips. Raises LocalError for what can't be used, before any model is loaded where possible."""
    config = GenerateConfig(
        seed=request.seed,
        steps=request.steps,
        guidance=request.guidance,
        top_k=request.top_k,
        threshold=request.threshold,
        clips_per_prompt=request.num,
        num_frames=request.frames,
        device=request.device,
        dtype=cast(DtypeName, request.dtype),
        experts_in_memory=request.experts_in_memory,
    )
    check_request(request.prompts, config)
    targets = clip_paths(request.out.expanduser().absolute(), request.num * len(request.prompts))
    _check_target(targets[0])
    started = time.monotonic()
    with reporting(quiet=request.as_json) as report:
        _generate(request, config, targets, report)
    _tell(request, targets, time.monotonic() - started)


def clip_paths(out: Path, num: int) -> list[Path]:
    """`out` itself for one clip, else numbered files beside it."""
    if num == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{index}{out.suffix}") for index in range(num)]


def _check_target(path: Path) -> None:
    if path.suffix.lower() not in (".mp4", _PICTURE):
        raise LocalError(
            f"{path.name}: clips are written as .mp4, pictures as {_PICTURE}; choose such a name for --out"
        )
    if path.is_dir():
        raise LocalError(f"{path} is a folder; name a file such as {path / 'clip.mp4'}")
    with disk_errors(path.parent, _CLIP_ROOM_BYTES):
        path.parent.mkdir(parents=True, exist_ok=True)
    require_space(path.parent, _CLIP_ROOM_BYTES)


def _generate(
    request: GenerateRequest, config: GenerateConfig, targets: list[Path], report: Report
) -> None:
    folder = request.model.expanduser().absolute()
    if not folder.is_dir():
        raise LocalError(
            f"there is no folder {folder}; get a release first: kinoswarm download INVITE --out {folder}"
        )
    from kinoswarm_model.frame_strips import frame_strip, write_png
    from kinoswarm_model.generate import generate_from
    from kinoswarm_model.release_reader import open_release
    from kinoswarm_model.video_io import write_mp4

    release = open_release(folder, allow_missing_experts=request.allow_missing_experts)
    _check_picture(request, release)
    clips = generate_from(
        release,
        request.prompts,
        config,
        lambda done, total: report(done, total, "denoising"),
    )
    for path, clip in zip(targets, clips, strict=True):
        with disk_errors(path, _CLIP_ROOM_BYTES):
            if path.suffix.lower() == _PICTURE:
                write_png(path, frame_strip(clip, scale=request.scale))
            else:
                write_mp4(path, clip, release.info.model.clip.fps, scale=request.scale)


def _check_picture(request: GenerateRequest, release: "Release") -> None:
    frames = request.frames or release.info.model.pixels[0]
    if frames > 1 and request.out.suffix.lower() == _PICTURE:
        raise LocalError(
            f"{request.out.name} is a picture, and this release makes clips of {frames} frames: name an .mp4, or "
            "ask for --frames 1"
        )


def _tell(request: GenerateRequest, targets: list[Path], seconds: float) -> None:
    if request.as_json:
        facts = {
            "clips": [str(path) for path in targets],
            "prompts": request.prompts,
            "seed": request.seed,
            "seconds": round(seconds, 2),
        }
        typer.echo(json.dumps(facts))
        return
    for path in targets:
        typer.echo(str(path))
