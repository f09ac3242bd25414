"""One camera in one place of a ViZDoom map: finds a view, moves, and says truthfully what was filmed.

Owns the game's settings, the motions and what makes a clip acceptable; files are render.py's. Needs `vizdoom`.
Shapes: T frames, H height, W width.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.engine_launcher import engine_that_dies_with_us
from kinoswarm_model.data.errors import DataError
from kinoswarm_model.data.scenes import NOT_OBJECTS, WORD_BY_OBJECT, Colour, Scene

Picture = NDArray[np.uint8]
"""(H, W, 3) RGB; a clip is (T, H, W, 3)."""

_SCREEN = (120, 160)  # rows, columns of ViZDoom's smallest 4:3 resolution
_EXPOSURE = (255 * (np.arange(256) / 255) ** (1 / 1.5)).round().astype(np.uint8)
"""The engine's own pictures are too dark to tell places apart at 32 pixels."""

_LEAST_MEAN_DEPTH = 10.0  # of 255; less is a nose against a wall
_LEAST_SHARE_IN_SIGHT = 0.01  # of the picture's pixels, to be worth a caption
_TRIES_PER_MOTION = 12  # then another motion: some narrow places allow turning only
_MAX_TRIES = 240  # views tried for one clip before the map is called unsuitable
_TICS_PER_FRAME = 2
_STOPPING_TICS = 6  # until a walk's speed is mostly gone
_LOOKS = 5  # directions looked at from one spot
_WARM_UP_TICS = 8  # until the player's speed is nearly that of the motion
_LEAST_UNITS_PER_FRAME = 8.0  # a free player makes 14; less is a camera that a wall stopped
_MOST_DRIFT = 0.35  # sideways share of a walk; more is sliding along a wall


@dataclass(frozen=True)
class Motion:
    """One camera motion: words, and (turn degrees, forward, sideways) as the game is asked for per tic."""

    words: str
    turn: float = 0.0
    forward: float = 0.0
    sideways: float = 0.0


MOTIONS = (
    Motion("turns left", turn=-3.2),
    Motion("turns right", turn=3.2),
    Motion("moves forward", forward=26.0),
    Motion("moves backward", forward=-26.0),
    Motion("slides left", sideways=-26.0),
    Motion("slides right", sideways=26.0),
)


@dataclass(frozen=True)
class Shot:
    """What was filmed."""

    frames: Picture
    """(T, H, W, 3)"""
    shares: dict[str, float]
    """For every kind of object in sight, the largest share of the picture that it filled."""
    path: NDArray[np.float64]
    """(T, 3): x and y in map units, and the angle in degrees."""


@dataclass(frozen=True)
class Stage:
    """A running game at a scene."""

    game: Any
    scene: Scene
    home: tuple[float, float, float]
    """Where the player starts, and the angle in degrees it looks at."""


@contextlib.contextmanager
def stage_at(scene: Scene, seed: int) -> Iterator[Stage]:
    """A running game at the scene, without monsters, weapon or messages. It litters its working directory."""
    try:
        import vizdoom
    except ImportError as error:
        raise DataError("rendering needs ViZDoom: pip install 'kinoswarm[demo]'") from error
    game = vizdoom.DoomGame()
    game.set_doom_game_path(str(Path(vizdoom.__file__).parent / scene.wad))
    game.set_doom_map(scene.map)
    _set_up(game, vizdoom)
    game.set_seed(seed)
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="kinoswarm-render-") as scratch:
        engine = Path(vizdoom.__file__).parent / "vizdoom"
        if engine.is_file():  # on Windows it has another name and starts as it is
            game.set_vizdoom_path(str(engine_that_dies_with_us(engine, Path(scratch))))
        os.chdir(scratch)
        try:
            game.init()
            x, y, angle = map(float, game.get_state().game_variables)
            yield Stage(game, scene, (x, y, angle))
        finally:
            game.close()
            os.chdir(before)


def _set_up(game: Any, vizdoom: Any) -> None:
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    unwanted = "hud weapon crosshair messages corpses decals particles effects_sprites"
    for part in [*unwanted.split(), "screen_flashes"]:
        getattr(game, f"set_render_{part}")(False)
    game.set_window_visible(False)
    game.set_depth_buffer_enabled(True)
    game.set_labels_buffer_enabled(True)
    game.set_episode_timeout(0)
    button, variable = vizdoom.Button, vizdoom.GameVariable
    game.set_available_buttons(
        [
            button.TURN_LEFT_RIGHT_DELTA,
            button.MOVE_FORWARD_BACKWARD_DELTA,
            button.MOVE_LEFT_RIGHT_DELTA,
        ]
    )
    game.set_available_game_variables([variable.POSITION_X, variable.POSITION_Y, variable.ANGLE])
    game.add_game_args("+god +sv_cheats 1 -nomonsters")


def film(stage: Stage, rng: np.random.Generator, size: tuple[int, int, int]) -> tuple[Picture, str]:
    """One clip of `size` (T, H, W) that moves as its caption says, in a picture of the place's colour."""
    for attempt in range(_MAX_TRIES):
        if attempt % _TRIES_PER_MOTION == 0:
            motion = MOTIONS[int(rng.integers(len(MOTIONS)))]
        found = _stand if stage.scene.view is not None else _wander
        if not found(stage, rng):
            continue
        shot = _shoot(stage.game, motion, size)
        if shot and _is_truthful(stage.scene, motion, shot):
            return shot.frames, _caption(motion, stage.scene, shot.shares)
    raise DataError(
        f"{stage.scene.name}: no usable view in {_MAX_TRIES} tries; the map file differs from the "
        "one this program was made for, install the pinned vizdoom"
    )


def _is_truthful(scene: Scene, motion: Motion, shot: Shot) -> bool:
    untold = [share for name, share in shot.shares.items() if name not in WORD_BY_OBJECT]
    return (
        max(untold, default=0.0) <= scene.most_share_untold
        and moved_as_said(motion, shot.path)
        and _shows(scene, shot.frames)
    )


def _wander(stage: Stage, rng: np.random.Generator) -> bool:
    """Go somewhere at random and look around; True when a view is open and of the place's colour."""
    game = stage.game
    if game.get_state() is None:
        game.new_episode()
    elif rng.random() < stage.scene.start_share:
        # A new episode would do, but loading the map takes longer than filming a clip.
        game.send_game_command(f"warp {stage.home[0]} {stage.home[1]}")
    game.make_action([float(rng.uniform(-180.0, 180.0)), 0.0, 0.0], 1)
    game.make_action([0.0, 50.0, 0.0], int(rng.integers(3, 14)))
    game.make_action([0.0, 0.0, 0.0], _STOPPING_TICS)
    for _ in range(_LOOKS):
        game.make_action([float(rng.uniform(40.0, 140.0)), 0.0, 0.0], 1)
        state = game.get_state()
        if state is None:
            return False
        if float(state.depth_buffer.mean()) >= _LEAST_MEAN_DEPTH and _shows(
            stage.scene, _EXPOSURE[state.screen_buffer[None, ::4, ::4]]
        ):
            return True
    return False


def _stand(stage: Stage, rng: np.random.Generator) -> bool:
    """Go to the view of the scene, a little to its side; True when it is open."""
    game, view = stage.game, stage.scene.view
    assert view is not None
    if game.get_state() is None:
        game.new_episode()
    x, y, angle = stage.home
    game.send_game_command(f"warp {x} {y}")
    game.make_action([0.0, 0.0, 0.0], 1)
    wanted = angle + rng.uniform(-view.spread_degrees, view.spread_degrees)
    # The game counts angles against the clock and turns with it.
    turn = (float(game.get_state().game_variables[2]) - wanted + 180.0) % 360.0 - 180.0
    game.make_action([turn, 0.0, 0.0], 1)
    game.make_action([0.0, 50.0, 0.0], int(rng.integers(view.most_tics + 1)))
    game.make_action([0.0, 0.0, 0.0], _STOPPING_TICS)
    state = game.get_state()
    return state is not None and float(state.depth_buffer.mean()) >= _LEAST_MEAN_DEPTH


def _shoot(game: Any, motion: Motion, size: tuple[int, int, int]) -> Shot | None:
    """The frames of one motion; nothing when a wall is in the way at once or the game ended."""
    action = [motion.turn, motion.forward, motion.sideways]
    before = game.get_state().game_variables
    game.make_action(action, _WARM_UP_TICS)
    if game.get_state() is None:
        return None
    warm_up = np.array([before, game.get_state().game_variables])
    if not motion.turn and _progress(motion, warm_up)[0] < _LEAST_UNITS_PER_FRAME:
        return None
    frames, path, shares = [], [], dict[str, float]()
    left, right = _columns(size)
    for _ in range(size[0]):
        state = game.get_state()
        if state is None:
            return None
        frames.append(_scaled(state.screen_buffer[:, left:right], size))
        path.append(state.game_variables)
        seen = np.bincount(state.labels_buffer[:, left:right].ravel(), minlength=256)
        for label in state.labels:
            if label.object_name in NOT_OBJECTS:
                continue
            share = float(seen[label.value]) / (_SCREEN[0] * (right - left))
            shares[label.object_name] = max(share, shares.get(label.object_name, 0.0))
        game.make_action(action, _TICS_PER_FRAME)
    return Shot(np.stack(frames), shares, np.array(path))


def _columns(size: tuple[int, int, int]) -> tuple[int, int]:
    """First and last column of the centre part of the screen that has the wanted aspect."""
    rows, columns = _SCREEN
    crop = min(columns, round(rows * size[2] / size[1]))
    left = (columns - crop) // 2
    return left, left + crop


def _scaled(screen: Picture, size: tuple[int, int, int]) -> Picture:
    """Exposed and area-averaged to (H, W, 3)."""
    from PIL import Image

    image = Image.fromarray(_EXPOSURE[screen])
    return np.asarray(image.resize((size[2], size[1]), Image.Resampling.BOX))


def moved_as_said(motion: Motion, path: NDArray[np.float64]) -> bool:
    """Did the player go where the motion says, not stopped by a wall or slid along one?"""
    if motion.turn:
        return True
    wanted, drift = _progress(motion, path)
    least = _LEAST_UNITS_PER_FRAME * (len(path) - 1)
    return wanted >= least and abs(drift) <= _MOST_DRIFT * wanted


def _progress(motion: Motion, path: NDArray[np.float64]) -> tuple[float, float]:
    """Map units gone in the motion's direction and across it."""
    step = path[-1, :2] - path[0, :2]
    angle = np.deg2rad(path[0, 2])
    ahead = float(step @ (np.cos(angle), np.sin(angle)))
    aside = float(step @ (np.sin(angle), -np.cos(angle)))
    wanted, drift = (ahead, aside) if motion.forward else (aside, ahead)
    return wanted * float(np.sign(motion.forward or motion.sideways)), drift


def _shows(scene: Scene, frames: Picture) -> bool:
    """Is enough of every picture in the place's colour?"""
    return bool(share_of(scene.colour, frames).min() >= scene.least_share)


def share_of(colour: Colour, frames: Picture) -> NDArray[np.float64]:
    """(T, H, W, 3) -> (T,) share of pixels that a person would call so."""
    r, g, b = np.moveaxis(frames.astype(np.float32), -1, 0)
    spread = frames.max(axis=-1).astype(np.float32) - frames.min(axis=-1)
    lit = frames.max(axis=-1) > 40
    match colour:
        case Colour.RED:
            hits = (r > 1.8 * g) & (r > 1.8 * b)
        case Colour.GREEN:
            hits = (g > 1.25 * r) & (g > 1.25 * b)
        case Colour.BLUE:
            hits = (b > 1.5 * r) & (b > 1.5 * g)
        case Colour.OLIVE:
            hits = (g >= r) & (g > 1.08 * b) & (spread < 60)
        case Colour.TAN:
            hits = (r > 1.08 * g) & (g > 1.08 * b) & (r < 2.2 * g)
        case Colour.GREY:
            hits = spread < 16
    share: NDArray[np.float64] = (hits & lit).mean(axis=(1, 2))
    return share


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
