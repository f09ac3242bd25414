"""`data prepare`: what comes out, that it is repeatable, and what is said about bad input."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
from data.conftest import files_of, write_clips

from kinoswarm_model.data import prepare as prepare_module
from kinoswarm_model.data.data_manifest import read_manifest
from kinoswarm_model.data.errors import DataError, NoSpaceLeft
from kinoswarm_model.data.prepare import PrepareConfig, prepare
from kinoswarm_model.data.shards import read_shard

CONFIG = PrepareConfig(num_clusters=2, shard_clips=8)


@pytest.fixture(scope="module")
def prepared(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare(clips, out, CONFIG)
    return out


def test_places_that_look_different_become_different_clusters(prepared: Path) -> None:
    manifest = read_manifest(prepared)
    assert [c.num_clips + c.heldout.num_clips for c in manifest.clusters] == [12, 12]
    for cluster in manifest.clusters:
        captions = {
            caption
            for file in [*cluster.shards, cluster.heldout]
            for caption in read_shard(prepared / file.path).captions
        }
        assert len(captions) == 1
    assert {c.label for c in manifest.clusters} == {"red wall", "blue wall"}


def test_held_out_clips_are_in_no_shard(prepared: Path) -> None:
    for cluster in read_manifest(prepared).clusters:
        heldout = read_shard(prepared / cluster.heldout.path).clips
        public = [read_shard(prepared / s.path).clips for s in cluster.shards]
        seen = {clip.tobytes() for shard in public for clip in shard}
        assert len(heldout) >= 1
        assert not any(clip.tobytes() in seen for clip in heldout)
        assert all(len(shard) <= CONFIG.shard_clips for shard in public)


def test_a_shard_holds_pixels_and_unit_text_vectors(prepared: Path) -> None:
    manifest = read_manifest(prepared)
    shard = read_shard(prepared / manifest.clusters[0].shards[0].path)
    assert shard.clips.shape[1:] == (3, 8, 32, 32)
    assert shard.clips.dtype == np.uint8
    norms = np.linalg.norm(shard.text.pooled.astype(np.float32), axis=1)
    assert norms == pytest.approx(1.0, abs=1e-2)
    assert shard.text.tokens.shape[1:] == (manifest.text_tokens, manifest.text_dim)


def test_the_same_input_and_seed_give_the_same_bytes(
    clips: Path, prepared: Path, tmp_path: Path
) -> None:
    prepare(clips, tmp_path / "again", CONFIG)
    assert files_of(tmp_path / "again") == files_of(prepared)


def test_a_complete_folder_is_taken_as_it_is(clips: Path, prepared: Path) -> None:
    before = (prepared / "manifest.json").stat().st_mtime_ns
    prepare(clips, prepared, CONFIG)
    assert (prepared / "manifest.json").stat().st_mtime_ns == before


def test_what_an_interrupted_run_left_is_not_seen_and_not_in_the_way(
    clips: Path, tmp_path: Path
) -> None:
    """Killed while writing shards: the part folder is there, the result is not."""
    left = tmp_path / ".out.part" / "shards"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")
    prepare(clips, tmp_path / "out", CONFIG)
    assert not (tmp_path / ".out.part").exists()
    assert "shards/half" not in files_of(tmp_path / "out")


def test_broken_files_are_left_out_and_counted(clips: Path, tmp_path: Path) -> None:
    source = tmp_path / "clips"
    shutil.copytree(clips, source)
    (source / "empty.mp4").write_bytes(b"")
    (source / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    for name in ("empty", "noise"):
        (source / f"{name}.txt").write_text("something")
    (source / "003.txt").unlink()
    (source / "005.txt").write_text("\n")
    manifest = prepare(source, tmp_path / "out", CONFIG)
    assert manifest.left_out == {
        "cannot be decoded": 1,
        "empty caption": 1,
        "missing caption": 1,
        "the file is empty": 1,
    }
    assert manifest.num_clips == 22


def message_of(source: Path, out: Path, config: PrepareConfig = CONFIG) -> str:
    with pytest.raises(DataError) as caught:
        prepare(source, out, config)
    assert not out.exists(), "something half-written is visible"
    return str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "is not a folder" in message_of(tmp_path / "nowhere", tmp_path / "out")


def test_a_folder_without_video_says_which_files_count(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    assert ".mp4" in message_of(tmp_path / "src", tmp_path / "out")


def test_no_caption_at_all_says_where_to_write_one(tmp_path: Path) -> None:
    source = write_clips(tmp_path / "src", 2)
    for caption in source.glob("*.txt"):
        caption.unlink()
    message = message_of(source, tmp_path / "out")
    assert "write what is seen in 000.txt beside 000.mp4" in message


def test_only_unreadable_videos_say_that_no_clip_could_be_made(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "a.mp4").write_bytes(b"")
    (source / "a.txt").write_text("a wall")
    assert "no clip could be made" in message_of(source, tmp_path / "out")


def test_one_clip_and_fewer_clips_than_clusters_say_what_to_change(tmp_path: Path) -> None:
    one = write_clips(tmp_path / "one", 1)
    assert "1 clip cannot fill 2 clusters: each needs" in message_of(one, tmp_path / "out")
    two = write_clips(tmp_path / "two", 2)
    config = PrepareConfig(num_clusters=3)
    assert "2 clips cannot fill 3 clusters" in message_of(two, tmp_path / "out", config)
    alone = PrepareConfig(num_clusters=1)
    assert "1 clip cannot fill 1 cluster: each needs at least one clip to train on" in message_of(
        one, tmp_path / "out", alone
    )


def test_a_full_disk_says_so_and_leaves_nothing(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: the second shard's write meets a full disk."""
    real, calls = prepare_module.write_shard, []

    def full(path: Path, shard: object) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, shard)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare_module, "write_shard", full)
    with pytest.raises(NoSpaceLeft, match="free some and run the same command again"):
        prepare(clips, tmp_path / "out", CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_never_overwritten(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="holds other files"):
        prepare(clips, out, CONFIG)
    assert (out / "thesis.txt").read_text() == "years of work"


def test_a_manifest_whose_shard_is_gone_is_refused(prepared: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    next((copy / "shards").iterdir()).unlink()
    with pytest.raises(DataError, match="is missing; prepare the data again"):
        read_manifest(copy)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        read_manifest(copy)
