"""Decoding: every container, right pictures at the right times, and no file that breaks more than itself."""

from pathlib import Path

import numpy as np
import pytest
from data.tiny_videos import CODEC_BY_SUFFIX, counting, striped, write_video
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kinoswarm_model.data.decode import VIDEO_SUFFIXES, Geometry, decode_clips
from kinoswarm_model.data.errors import UnreadableVideo

SMALL = Geometry(frames=8, height=32, width=32, fps=8)


@pytest.mark.parametrize("suffix", sorted(CODEC_BY_SUFFIX))
def test_every_container_gives_back_its_pictures(suffix: str, tmp_path: Path) -> None:
    clip = striped((200, 30, 30))
    path = write_video(tmp_path / f"v{suffix}", clip, fps=8)
    [decoded] = decode_clips(path, SMALL, max_clips=4)
    assert decoded.shape == clip.shape
    assert decoded.dtype == np.uint8
    tolerance = 24 if suffix == ".gif" else 8  # a GIF's palette is coarse
    assert np.abs(decoded.astype(int) - clip).mean() < tolerance


def test_the_tests_cover_every_suffix_that_is_read() -> None:
    assert set(CODEC_BY_SUFFIX) == VIDEO_SUFFIXES


def test_frames_are_taken_at_the_wanted_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", counting(48), fps=24)
    first, second = decode_clips(path, SMALL, max_clips=9)
    values = np.concatenate([first, second])[:, 16, 16, 1].astype(int)
    assert np.abs(values - (2 * 3 * np.arange(16) + 20)).max() <= 2


def test_a_slower_video_shows_each_frame_as_long_as_it_lasts(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", counting(4), fps=4)
    [clip] = decode_clips(path, SMALL, max_clips=1)
    values = clip[:, 16, 16, 1].astype(int)
    assert np.abs(values - np.repeat([20, 22, 24, 26], 2)).max() <= 1


def test_no_more_clips_are_cut_than_asked_for(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", counting(80), fps=8)
    assert len(decode_clips(path, SMALL, max_clips=3)) == 3
    assert len(decode_clips(path, SMALL, max_clips=99)) == 10


def test_wide_pictures_lose_their_sides_and_nothing_is_squeezed(tmp_path: Path) -> None:
    clip = np.zeros((8, 64, 192, 3), dtype=np.uint8)
    clip[:, :, 64:128] = (0, 255, 0)
    path = write_video(tmp_path / "v.mp4", clip, fps=8)
    [decoded] = decode_clips(path, SMALL, max_clips=1)
    assert decoded[..., 1].min() > 200
    assert decoded[..., 0].max() < 50


def test_small_pictures_are_enlarged_smoothly(tmp_path: Path) -> None:
    clip = np.zeros((8, 16, 16, 3), dtype=np.uint8)
    clip[:, :, 8:] = 255
    path = write_video(tmp_path / "v.mp4", clip, fps=8)
    [decoded] = decode_clips(path, SMALL, max_clips=1)
    assert len(np.unique(decoded[0, 16, :, 0])) > 2


def test_an_empty_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    with pytest.raises(UnreadableVideo, match=r"v\.mp4: the file is empty; remove the file or"):
        decode_clips(tmp_path / "v.mp4", SMALL, max_clips=1)


def test_a_truncated_file_is_unreadable(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", striped((9, 9, 9)), fps=8)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UnreadableVideo, match=r"v\.mp4: cannot be decoded"):
        decode_clips(path, SMALL, max_clips=1)


def test_a_video_shorter_than_a_clip_says_how_long_it_must_be(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", striped((9, 9, 9), frames=5), fps=8)
    with pytest.raises(UnreadableVideo, match="too short, under 8 frames at 8/s"):
        decode_clips(path, SMALL, max_clips=1)


def test_pictures_beyond_the_bound_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.gif", striped((9, 9, 9)), fps=8)
    raw = bytearray(path.read_bytes())
    raw[6:10] = b"\xff\xff\xff\xff"  # the GIF's own width and height
    path.write_bytes(raw)
    with pytest.raises(UnreadableVideo):
        decode_clips(path, SMALL, max_clips=1)


@given(place=st.integers(0, 1500), value=st.integers(0, 255))
@example(place=1372, value=0)  # the codec's name
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
def test_a_flipped_byte_never_crashes_the_decoder(place: int, value: int, tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    if not whole.exists():
        write_video(whole, striped((9, 99, 9)), fps=8)
    raw = bytearray(whole.read_bytes())
    raw[place % len(raw)] = value
    (tmp_path / "v.mp4").write_bytes(raw)
    try:
        clips = decode_clips(tmp_path / "v.mp4", SMALL, max_clips=2)
    except UnreadableVideo:
        return
    assert all(clip.shape == (8, 32, 32, 3) for clip in clips)
