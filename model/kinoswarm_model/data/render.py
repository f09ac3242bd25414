"""Captioned clips from ViZDoom's Freedoom maps: an mp4 and a .txt caption for each. Owns the files and processes.

What is filmed, and what may be said of it, is filming.py's. Needs the `demo` extra (vizdoom).
"""

import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np

from kinoswarm_model.atomic_file import write_atomically
from kinoswarm_model.data import filming
from kinoswarm_model.data.errors import DataError, explained
from kinoswarm_model.data.scenes import SCENES, Scene
from kinoswarm_model.parent_death import die_with_parent
from kinoswarm_model.video_io import mp4_bytes

Progress = Callable[[int, int, str], None]

_REPORT_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """What to render; equal configs give equal files, whatever `processes` is."""

    clips_per_scene: int = 120
    """At least 1."""
    frames: int = 8
    """Per clip, at least 1."""
    height: int = 32
    """Pixels, 8 to 120: the game's picture is no larger."""
    width: int = 32
    """Pixels, 8 to 160."""
    fps: int = 8
    """What the files state."""
    seed: int = 0
    """At least 0."""
    processes: int = 2
    """How many scenes are filmed at once."""
    scenes: tuple[Scene, ...] = SCENES

    def __post_init__(self) -> None:
        bounds = {
            "clips_per_scene": (1, 1_000_000),
            "frames": (1, 1_024),
            "height": (8, 120),
            "width": (8, 160),
            "fps": (1, 120),
            "seed": (0, 2**32 - 1),
            "processes": (1, 256),
        }
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise DataError(f"{name} is {value}; {least} to {most} is allowed")


@dataclass(frozen=True)
class RenderSummary:
    num_clips: int
    num_scenes: int
    out_dir: Path


_counter: "Synchronized[int]"


def _start_process(parent_pid: int, counter: "Synchronized[int]") -> None:
    global _counter
    die_with_parent(parent_pid)
    _counter = counter


def render_clips(
    out_dir: Path, config: RenderConfig, progress: Progress | None = None
) -> RenderSummary:
    """Film `clips_per_scene` clips of every scene into `out_dir`; after a crash the same call films them again alike.

    Raises DataError when ViZDoom is missing or a map differs, NoSpaceLeft when the disk is full.
    """
    if importlib.util.find_spec("vizdoom") is None:
        raise DataError("rendering needs ViZDoom: pip install 'kinoswarm[demo]'")
    total = len(config.scenes) * config.clips_per_scene
    context = get_context("spawn")
    counter: Synchronized[int] = context.Value("q", 0)
    report = progress or (lambda done, total, what: None)
    out_dir = out_dir.absolute()  # the processes that film work in folders of their own
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        # A process of its own for every scene: what the engine keeps from one map changes the pictures of the next.
        with ProcessPoolExecutor(
            min(config.processes, len(config.scenes)),
            context,
            _start_process,
            (os.getpid(), counter),
            max_tasks_per_child=1,
        ) as pool:
            jobs = {pool.submit(_render_scene, out_dir, s, config) for s in config.scenes}
            _watch(jobs, lambda: report(counter.value, total, "rendering clips"))
    except BrokenProcessPool as error:
        raise DataError("a rendering process was killed; run the same command again") from error
    except OSError as error:
        raise explained(error, out_dir) from error
    return RenderSummary(total, len(config.scenes), out_dir)


def _watch(jobs: "set[Future[None]]", report: Callable[[], None]) -> None:
    """Wait for all jobs; the first failure is raised and what has not begun is dropped."""
    waiting = jobs
    while waiting:
        done, waiting = wait(waiting, timeout=_REPORT_EVERY_S, return_when="FIRST_EXCEPTION")
        report()
        failed = [job for job in done if job.exception()]
        if failed:
            for job in waiting:
                job.cancel()
            failed[0].result()


def _render_scene(out_dir: Path, scene: Scene, config: RenderConfig) -> None:
    # The scene's own name seeds it: other scenes do not change its clips.
    rng = np.random.default_rng([config.seed, *scene.name.encode()])
    size = (config.frames, config.height, config.width)
    with filming.stage_at(scene, config.seed) as stage:
        for index in range(config.clips_per_scene):
            clip, caption = filming.film(stage, rng, size)
            stem = f"{scene.name}-{index:05d}"
            # The caption first: a video without one would count as a mistake of the user's.
            write_atomically(out_dir / f"{stem}.txt", f"{caption}\n".encode(), durable=False)
            raw = mp4_bytes(clip, config.fps)
            write_atomically(out_dir / f"{stem}.mp4", raw, durable=False)
            with _counter.get_lock():
                _counter.value += 1
