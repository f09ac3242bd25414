"""Captioned clips from ViZDoom's Freedoom maps: real camera motion through calm places. Owns the filming.

Each clip is an mp4 with a .txt caption beside it that says what the camera does, where, and what is in sight.
Needs the `demo` extra (vizdoom).
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.errors import DataError
from kinoswarm_model.data.scenes import SCENES, WORD_BY_OBJECT, Scene
from kinoswarm_model.video_io import write_mp4

Progress = Callable[[int, int, str], None]

_SCREEN = (120, 160)  # rows, columns of ViZDoom's smallest 4:3 resolution
_LEAST_MEAN_DEPTH = 14.0  # of 255; less is a nose against a wall
_LEAST_SHARE_IN_SIGHT = 0.004  # of the picture's pixels, to be worth a caption
_STILL_PIXELS = 2.0  # mean change of grey values over a clip below which the camera was stuck
_BACK_TO_START = 0.35  # share of clips filmed near the start, so that a scene stays one place
_MAX_TRIES = 40  # poses tried for one clip before the map is called unsuitable


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """What to render; equal configs give equal files."""

    clips_per_scene: int = 120
    frames: int = 8
    height: int = 32
    width: int = 32
    fps: int = 8
    seed: int = 0
    processes: int = 2


@dataclass(frozen=True)
class RenderSummary:
    num_clips: int
    num_scenes: int
    out_dir: Path


@dataclass(frozen=True)
class Motion:
    """One camera motion: words, and (turn degrees, forward, sideways) per tic."""

    words: str
    turn: float = 0.0
    forward: float = 0.0
    sideways: float = 0.0


MOTIONS = (
    Motion("turns left", turn=-2.4),
    Motion("turns right", turn=2.4),
    Motion("moves forward", forward=11.0),
    Motion("moves backward", forward=-9.0),
    Motion("slides left", sideways=-9.0),
    Motion("slides right", sideways=9.0),
)
_TICS_PER_FRAME = 3
_WARM_UP_TICS = 3  # until the player's speed is that of the motion


def render_clips(
    out_dir: Path, config: RenderConfig, progress: Progress | None = None
) -> RenderSummary:
    """Film `clips_per_scene` clips of every scene into `out_dir`. Files that exist already are filmed again alike."""
    out_dir.mkdir(parents=True, exist_ok=True)
    total = len(SCENES) * config.clips_per_scene
    done = 0
    # A process of its own for every scene: what the engine keeps from one map changes the pictures of the next.
    workers = min(config.processes, len(SCENES))
    with ProcessPoolExecutor(workers, get_context("spawn"), max_tasks_per_child=1) as pool:
        jobs = [
            pool.submit(render_scene, out_dir, scene, index, config)
            for index, scene in enumerate(SCENES)
        ]
        for job in as_completed(jobs):
            done += job.result()
            if progress is not None:
                progress(done, total, "rendering clips")
    return RenderSummary(total, len(SCENES), out_dir)


def render_scene(out_dir: Path, scene: Scene, scene_index: int, config: RenderConfig) -> int:
    """Film one scene; returns the number of clips."""
    rng = np.random.default_rng([config.seed, scene_index])
    with _game(scene, config.seed) as game:
        for clip_index in range(config.clips_per_scene):
            clip, caption = _film(game, scene, rng, config)
            stem = out_dir / f"{scene.name}-{clip_index:05d}"
            write_mp4(stem.with_suffix(".mp4"), clip, config.fps)
            stem.with_suffix(".txt").write_text(caption + "\n")
    return config.clips_per_scene


@contextlib.contextmanager
def _game(scene: Scene, seed: int) -> Iterator[Any]:
    """A running game at the scene, without monsters, weapon or messages. It litters its working directory."""
    import vizdoom

    game = vizdoom.DoomGame()
    game.set_doom_game_path(str(Path(vizdoom.__file__).parent / scene.wad))
    game.set_doom_map(scene.map)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    for part in ("hud", "weapon", "crosshair", "messages", "corpses", "decals", "particles"):
        getattr(game, f"set_render_{part}")(False)
    game.set_render_effects_sprites(False)
    game.set_window_visible(False)
    game.set_depth_buffer_enabled(True)
    game.set_labels_buffer_enabled(True)
    game.set_episode_timeout(0)
    game.set_seed(seed)
    game.set_available_buttons(
        [
            vizdoom.Button.TURN_LEFT_RIGHT_DELTA,
            vizdoom.Button.MOVE_FORWARD_BACKWARD_DELTA,
            vizdoom.Button.MOVE_LEFT_RIGHT_DELTA,
        ]
    )
    game.add_game_args("+god +sv_cheats 1 -nomonsters +gamma 1.5")
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            game.init()
            game.new_episode()
            yield game
        finally:
            game.close()
            os.chdir(before)


def _film(
    game: Any, scene: Scene, rng: np.random.Generator, config: RenderConfig
) -> tuple[NDArray[np.uint8], str]:
    """One clip (T, H, W, 3) that really moves, and its caption."""
    for _ in range(_MAX_TRIES):
        motion = MOTIONS[int(rng.integers(len(MOTIONS)))]
        if not _wander(game, rng):
            continue
        frames, labels = _shoot(game, motion, config)
        if np.abs(np.diff(frames.mean(axis=-1), axis=0)).mean() >= _STILL_PIXELS:
            return frames, _caption(motion, scene, labels)
    raise DataError(
        f"{scene.name}: no moving picture in {_MAX_TRIES} tries; the map file differs from the "
        "one this program was made for, install the pinned vizdoom"
    )


def _wander(game: Any, rng: np.random.Generator) -> bool:
    """Go somewhere at random; True when the view is open enough to film."""
    if rng.random() < _BACK_TO_START or game.get_state() is None:
        game.new_episode()
    game.make_action([float(rng.uniform(-180.0, 180.0)), 0.0, 0.0], 1)
    game.make_action([0.0, 20.0, 0.0], int(rng.integers(3, 12)))
    game.make_action([0.0, 0.0, 0.0], 6)
    state = game.get_state()
    return state is not None and float(state.depth_buffer.mean()) >= _LEAST_MEAN_DEPTH


def _shoot(
    game: Any, motion: Motion, config: RenderConfig
) -> tuple[NDArray[np.uint8], dict[str, float]]:
    """The frames of one motion, and for every object in sight the largest share of the picture it filled."""
    action = [motion.turn, motion.forward, motion.sideways]
    game.make_action(action, _WARM_UP_TICS)
    frames, shares = [], dict[str, float]()
    for _ in range(config.frames):
        state = game.get_state()
        if state is None:
            game.new_episode()
            state = game.get_state()
        frames.append(_scaled(state.screen_buffer, config.height, config.width))
        for label in state.labels:
            share = label.width * label.height / (_SCREEN[0] * _SCREEN[1])
            shares[label.object_name] = max(share, shares.get(label.object_name, 0.0))
        game.make_action(action, _TICS_PER_FRAME)
    return np.stack(frames), shares


def _scaled(screen: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The centre square (or the centre of the wanted aspect), area-averaged to (height, width, 3)."""
    from PIL import Image

    rows, columns = _SCREEN
    crop = min(columns, round(rows * width / height))
    left = (columns - crop) // 2
    image = Image.fromarray(screen[:, left : left + crop])
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def _caption(motion: Motion, scene: Scene, shares: dict[str, float]) -> str:
    words = {
        WORD_BY_OBJECT[name]: share
        for name, share in sorted(shares.items())
        if name in WORD_BY_OBJECT and share >= _LEAST_SHARE_IN_SIGHT
    }
    text = f"the camera {motion.words} in {scene.place}"
    if words:
        text += f", {max(words, key=lambda word: words[word])} in sight"
    return text
