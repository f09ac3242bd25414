"""Writing and reading our own clips: close to what went in, same bytes for same frames, clear refusals."""

from pathlib import Path

import numpy as np
import pytest
from data.tiny_videos import striped

from kinoswarm_model.video_io import mp4_bytes, read_clip, write_mp4
from kinoswarm_protocol.errors import LocalError

CLIP = striped((200, 30, 30))


def test_a_clip_comes_back_nearly_as_it_was(tmp_path: Path) -> None:
    write_mp4(tmp_path / "v.mp4", CLIP, 8)
    back = read_clip(tmp_path / "v.mp4")
    assert back.shape == CLIP.shape
    assert np.abs(back.astype(int) - CLIP).mean() < 4


def test_equal_frames_give_equal_bytes() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 33, 31, 3), dtype=np.uint8)
    for clip in (CLIP, noise):
        assert len({mp4_bytes(clip.copy(), 8) for _ in range(5)}) == 1
    assert mp4_bytes(CLIP, 8) != mp4_bytes(noise, 8)


@pytest.mark.parametrize("enlarging", ["repeat", "smooth"])
def test_small_clips_can_be_enlarged(enlarging: str, tmp_path: Path) -> None:
    write_mp4(tmp_path / "v.mp4", CLIP, 8, scale=4, enlarging=enlarging)  # type: ignore[arg-type]
    back = read_clip(tmp_path / "v.mp4")
    assert back.shape == (8, 128, 128, 3)
    middles = back[:, 2::4, 2::4].astype(int)
    assert np.abs(middles - CLIP).mean() < 20


def test_odd_sizes_are_padded_with_their_edges(tmp_path: Path) -> None:
    write_mp4(tmp_path / "v.mp4", CLIP[:, :31, :29], 8)
    back = read_clip(tmp_path / "v.mp4")
    assert back.shape == (8, 32, 30, 3)
    assert np.abs(back[:, 31].astype(int) - back[:, 30]).mean() < 4


def test_pixels_need_not_lie_side_by_side_in_memory(tmp_path: Path) -> None:
    turned = CLIP.transpose(3, 0, 1, 2).copy().transpose(1, 2, 3, 0)
    assert mp4_bytes(turned, 8) == mp4_bytes(CLIP, 8)


@pytest.mark.parametrize("shape", [(0, 32, 32, 3), (8, 0, 32, 3), (8, 32, 32), (8, 32, 32, 4)])
def test_what_is_not_a_clip_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"must be \(T, H, W, 3\) and not empty"):
        write_mp4(tmp_path / "v.mp4", np.zeros(shape, np.uint8), 8)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video at all")
    with pytest.raises(LocalError, match=r"v\.mp4 cannot be read as a video"):
        read_clip(tmp_path / "v.mp4")
    with pytest.raises(LocalError, match=r"absent\.mp4 cannot be read as a video"):
        read_clip(tmp_path / "absent.mp4")
