"""`data prepare` run a second time: after a kill -9, with other settings, with other videos; and from long videos."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data.conftest import coloured_clip, write_clips
from data.tiny_videos import write_video
from PIL import Image

from kinoswarm_model.data.collecting import collect
from kinoswarm_model.data.cutting import Cutting
from kinoswarm_model.data.data_manifest import read_manifest
from kinoswarm_model.data.engine import LocalEngine
from kinoswarm_model.data.errors import DataError
from kinoswarm_model.data.prepare import PrepareConfig, prepare
from kinoswarm_model.data.shards import read_shard
from kinoswarm_model.data.sources import find_sources

CONFIG = PrepareConfig(num_clusters=2)


def ignore(done: int, total: int, what: str) -> None:
    pass


DIES_AT = """
import os, signal, sys
from pathlib import Path
from kinoswarm_model.data.prepare import PrepareConfig, prepare

def report(done, total, what):
    if what == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

prepare(Path(sys.argv[1]), Path(sys.argv[2]), PrepareConfig(num_clusters=2), report)
"""


def run_until(step: str, source: Path, out: Path) -> int:
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", DIES_AT, str(source), str(out), step],
        timeout=120,
        env={"PYTHONPATH": f"{root / 'protocol'}:{root / 'model'}", "PATH": "/usr/bin:/bin"},
    )
    return ended.returncode


@pytest.mark.parametrize(("step", "decoded"), [("decoding videos", 1), ("writing shards", 24)])
def test_killed_at_any_step_nothing_shows_and_the_same_call_goes_on(
    step: str, decoded: int, clips: Path, tmp_path: Path
) -> None:
    """The moments: right after the first video's journal line, and after the first cluster's files."""
    out = tmp_path / "out"
    assert run_until(step, clips, out) == -signal.SIGKILL
    assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
    seen: list[tuple[int, str]] = []
    manifest = prepare(clips, out, CONFIG, lambda done, _, what: seen.append((done, what)))
    assert [done for done, what in seen if what == "decoding videos"] == [*range(decoded + 1, 25)]
    assert read_manifest(out) == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in out.iterdir()} == {"manifest.json", "shards", "heldout"}
    whole = tmp_path / "whole"
    prepare(clips, whole, CONFIG)
    for path in sorted(whole.rglob("*.*")):
        assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes()


def test_a_torn_journal_and_a_spool_that_is_ahead_of_it_are_cut_to_what_holds(
    clips: Path, tmp_path: Path
) -> None:
    """The moments: killed between a video's clips and its line, and in the middle of a line."""
    cutting = Cutting(geometry=CONFIG.geometry, clips_per_video=4)
    sources = find_sources(clips)
    whole = collect(sources, cutting, tmp_path, ignore, LocalEngine())
    lines = (tmp_path / "journal").read_bytes().splitlines(True)
    (tmp_path / "journal").write_bytes(b"".join(lines[:5]) + lines[5][:-4])
    again = collect(sources, cutting, tmp_path, ignore, LocalEngine())
    assert (tmp_path / "journal").read_bytes() == b"".join(lines)
    assert len(again.clips) == len(whole.captions) == 24
    (tmp_path / "clips").write_bytes((tmp_path / "clips").read_bytes()[:-5])
    last = collect(sources, cutting, tmp_path, ignore, LocalEngine())
    assert last.captions == whole.captions


def test_copies_and_still_clips_are_left_out_with_a_count(clips: Path, tmp_path: Path) -> None:
    source = tmp_path / "src"
    shutil.copytree(clips, source)
    shutil.copy(source / "000.mp4", source / "copy.mp4")
    write_video(source / "still.mp4", coloured_clip(99, True)[:1].repeat(8, axis=0), fps=8)
    for name in ("copy", "still"):
        (source / f"{name}.txt").write_text("a red wall")
    manifest = prepare(source, tmp_path / "out", CONFIG)
    assert manifest.left_out == {"duplicate clip": 1, "static clip": 1}
    assert manifest.num_clips == 24


def test_pictures_make_a_swarm_of_one_frame(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    for index in range(12):
        path = source / f"{index:02d}{'.png' if index % 3 else '.jpg'}"
        Image.fromarray(coloured_clip(index, index % 2 == 0)[0]).save(path)
        path.with_suffix(".txt").write_text("red" if index % 2 == 0 else "blue")
    config = PrepareConfig(num_clusters=2, frames=1, fps=1)
    manifest = prepare(source, tmp_path / "out", config)
    assert manifest.num_clips == 12
    shard = read_shard(tmp_path / "out" / manifest.clusters[0].shards[0].path)
    assert shard.clips.shape[1:] == (3, 1, 32, 32)
    with pytest.raises(DataError, match="too short"):
        prepare(source, tmp_path / "moving", CONFIG)


def test_a_folder_prepared_otherwise_is_refused_and_kept(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(clips, out, CONFIG)
    before = (out / "manifest.json").read_bytes()
    for config in (
        PrepareConfig(num_clusters=3),
        PrepareConfig(num_clusters=2, heldout_fraction=0.2),
        PrepareConfig(num_clusters=2, seed=1),
    ):
        with pytest.raises(DataError, match="other videos or with other settings"):
            prepare(clips, out, config)
    with pytest.raises(DataError, match="other videos or with other settings"):
        prepare(write_clips(tmp_path / "more", 26), out, CONFIG)
    assert (out / "manifest.json").read_bytes() == before


def long_video(path: Path, seed: int, red: bool) -> None:
    frames = [
        np.roll(coloured_clip(seed, red)[0], (shift // 8 * 5, shift), (0, 1)) for shift in range(48)
    ]
    write_video(path, np.stack(frames), fps=8)
    path.with_suffix(".txt").write_text("a red wall" if red else "a blue wall")


def test_whole_videos_are_held_out(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    for index in range(8):
        long_video(source / f"{index}.mp4", index, red=index % 2 == 0)
    out = tmp_path / "out"
    manifest = prepare(source, out, CONFIG)
    assert manifest.num_clips == 8 * 6
    # One video of six clips, though two clips would be ten per cent.
    assert [cluster.heldout.num_clips for cluster in manifest.clusters] == [6, 6]


def test_only_the_beginning_of_a_long_video_is_used(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    for index in range(2):
        long_video(source / f"{index}.mp4", index, red=index == 0)
    config = PrepareConfig(num_clusters=2, clips_per_video=4)
    assert prepare(source, tmp_path / "out", config).num_clips == 8


def test_shards_are_read_as_a_mapping_that_never_changes_the_file(
    clips: Path, tmp_path: Path
) -> None:
    manifest = prepare(clips, tmp_path / "out", CONFIG)
    path = tmp_path / "out" / manifest.clusters[0].shards[0].path
    before = path.read_bytes()
    shard = read_shard(path)
    assert isinstance(shard.clips, np.memmap)
    shard.clips[0] = 0
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("setting", "value"), [("num_clusters", 0), ("heldout_fraction", 0.9), ("fps", 0)]
)
def test_a_bad_setting_is_named_with_what_is_allowed(setting: str, value: float) -> None:
    with pytest.raises(DataError, match=f"{setting} is {value}; .* is allowed"):
        PrepareConfig(**{setting: value})  # type: ignore[arg-type]
