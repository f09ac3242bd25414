"""What is filmed: places of their colour, motions that happened, captions that say so. Starts the real game."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kinoswarm_model.data.errors import DataError
from kinoswarm_model.data.filming import MOTIONS, film, moved_as_said, share_of, stage_at
from kinoswarm_model.data.render import RenderConfig, render_clips
from kinoswarm_model.data.scenes import SCENES, WORD_BY_OBJECT, Colour, View
from kinoswarm_model.video_io import read_clip

MOTION_BY_WORDS = {motion.words: motion for motion in MOTIONS}


def path_of(ahead: float, aside: float, frames: int = 8) -> np.ndarray:
    """(T, 3): an even walk of a player that looks along the y axis."""
    steps = np.linspace(0.0, 1.0, frames)
    return np.stack([aside * steps, ahead * steps, np.full(frames, 90.0)], axis=1)


@pytest.mark.parametrize(
    ("words", "ahead", "aside"),
    [
        ("moves forward", 100, 0),
        ("moves backward", -100, 0),
        ("slides right", 0, 100),
        ("slides left", 0, -100),
    ],
)
def test_a_walk_is_taken_for_its_own_motion_only(words: str, ahead: float, aside: float) -> None:
    walks = [motion for motion in MOTIONS if not motion.turn]
    fitting = [motion.words for motion in walks if moved_as_said(motion, path_of(ahead, aside))]
    assert fitting == [words]


def test_a_walk_that_a_wall_stopped_or_led_aside_is_not_kept() -> None:
    forward = MOTION_BY_WORDS["moves forward"]
    assert not moved_as_said(forward, path_of(20, 0))
    assert not moved_as_said(forward, path_of(100, 60))
    assert moved_as_said(forward, path_of(100, 20))


@pytest.mark.parametrize(
    ("colour", "pixel"),
    [
        (Colour.RED, (200, 10, 10)),
        (Colour.GREEN, (40, 120, 40)),
        (Colour.BLUE, (10, 10, 120)),
        (Colour.OLIVE, (120, 125, 100)),
        (Colour.TAN, (160, 120, 80)),
        (Colour.GREY, (120, 120, 120)),
    ],
)
def test_colours_are_told_apart(colour: Colour, pixel: tuple[int, int, int]) -> None:
    frames = np.full((2, 4, 4, 3), pixel, dtype=np.uint8)
    found = [other for other in Colour if share_of(other, frames).min() == 1]
    assert found == [colour]
    assert not any(share_of(other, np.zeros((1, 4, 4, 3), np.uint8)).any() for other in Colour)


def test_a_view_without_sway_begins_with_the_same_picture_every_time() -> None:
    scene = replace(SCENES[3], view=View(spread_degrees=0.0, most_tics=0))
    first_by_caption: dict[str, list[np.ndarray]] = {}
    with stage_at(scene, seed=0) as stage:
        for seed in range(8):
            clip, caption = film(stage, np.random.default_rng(seed % 2), (8, 24, 32))
            first_by_caption.setdefault(caption, []).append(clip[0].astype(np.int64))
    for pictures in first_by_caption.values():
        assert all(np.abs(picture - pictures[0]).mean() < 8 for picture in pictures)


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("filmed")
    render_clips(out, RenderConfig(clips_per_scene=6, seed=1, scenes=SCENES[2:4]))
    return out


def test_every_clip_has_its_caption_and_nothing_else_is_left(filmed: Path) -> None:
    stems = [f"{scene.name}-{i:05d}" for scene in SCENES[2:4] for i in range(6)]
    names = {f"{stem}{suffix}" for stem in stems for suffix in (".mp4", ".txt")}
    assert {path.name for path in filmed.iterdir()} == names
    assert not Path("_vizdoom").exists()


def test_clips_move_and_show_the_place_that_their_captions_name(filmed: Path) -> None:
    for scene in SCENES[2:4]:
        for path in filmed.glob(f"{scene.name}-*.mp4"):
            clip, caption = read_clip(path), path.with_suffix(".txt").read_text()
            assert clip.shape == (8, 32, 32, 3)
            assert f" in {scene.place}" in caption
            assert any(caption.startswith(f"the camera {words} in ") for words in MOTION_BY_WORDS)
            # A little less than promised: the file is compressed.
            assert share_of(scene.colour, clip).min() > 0.7 * scene.least_share
            assert np.abs(np.diff(clip.astype(float), axis=0)).mean() > 2


def test_only_known_objects_are_named(filmed: Path) -> None:
    for path in filmed.glob("*.txt"):
        _, _, seen = path.read_text().strip().partition(", ")
        assert seen.removesuffix(" in sight") in {"", *WORD_BY_OBJECT.values()}


def test_other_sizes_are_filmed_too_into_a_folder_named_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = RenderConfig(clips_per_scene=1, frames=3, height=48, width=64, scenes=SCENES[2:3])
    seen: list[tuple[int, int, str]] = []
    summary = render_clips(Path("clips"), config, lambda *step: seen.append(step))
    assert (summary.num_clips, summary.num_scenes) == (1, 1)
    assert seen[-1] == (1, 1, "rendering clips")
    assert read_clip(tmp_path / "clips" / f"{SCENES[2].name}-00000.mp4").shape == (3, 48, 64, 3)


@pytest.mark.parametrize(
    ("setting", "value"), [("clips_per_scene", 0), ("height", 500), ("seed", -1), ("frames", 0)]
)
def test_a_bad_setting_is_named_with_what_is_allowed(setting: str, value: int) -> None:
    with pytest.raises(DataError, match=rf"{setting} is {value}; \d+ to \d+ is allowed"):
        RenderConfig(**{setting: value})


def test_a_file_where_the_folder_should_be_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("years of work")
    with pytest.raises(DataError, match="holds other files"):
        render_clips(tmp_path / "out", RenderConfig(clips_per_scene=1, scenes=SCENES[:1]))
    assert (tmp_path / "out").read_text() == "years of work"
