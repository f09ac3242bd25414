"""Frames of the data for the cards: from public shards, made once, and a broken shard costs only its own picture."""

from pathlib import Path

from data.test_shards_and_clusters import small_shard
from PIL import Image
from protocol.samples import charter

from kinoswarm_coordinator.data_frames import write_frames
from kinoswarm_model.data.shards import write_shard


def test_frames_are_made_once_from_a_shard(tmp_path: Path) -> None:
    shard = tmp_path / "s.safetensors"
    write_shard(shard, small_shard())
    write_frames(charter(), tmp_path / "frames", lambda blob: shard)
    strip = tmp_path / "frames" / "0.png"
    with Image.open(strip) as image:
        assert image.size == (3 * 128, 128)
        expected = small_shard().clips[1][:, 1, 0, 0]
        assert image.getpixel((128, 0)) == tuple(int(value) for value in expected)
    before = strip.stat().st_mtime_ns
    write_frames(charter(), tmp_path / "frames", lambda blob: shard)
    assert strip.stat().st_mtime_ns == before


def test_a_shard_that_is_missing_or_broken_leaves_no_picture(tmp_path: Path) -> None:
    broken = tmp_path / "s.safetensors"
    broken.write_bytes(b"no shard")
    write_frames(charter(), tmp_path / "frames", lambda blob: broken)
    write_frames(charter(), tmp_path / "frames", lambda blob: None)
    assert list((tmp_path / "frames").iterdir()) == []
