"""Finding videos and their captions: what is left out is counted with its reason."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kinoswarm_model.data.errors import DataError
from kinoswarm_model.data.sources import MAX_CAPTION, find_sources


def add(folder: Path, name: str, caption: bytes | None = b"a cat\n") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"video")
    if caption is not None:
        path.with_suffix(".txt").write_bytes(caption)


def test_videos_are_found_in_folders_below_in_the_order_of_their_names(tmp_path: Path) -> None:
    add(tmp_path, "b.mp4")
    add(tmp_path, "a/deep/c.WEBM")
    assert [source.name for source in find_sources(tmp_path).usable] == ["a/deep/c.WEBM", "b.mp4"]


def test_hidden_files_and_folders_are_not_looked_at(tmp_path: Path) -> None:
    add(tmp_path, "a.mp4")
    add(tmp_path, ".b.mp4")
    add(tmp_path, ".cache/c.mp4")
    found = find_sources(tmp_path)
    assert [source.name for source in found.usable] == ["a.mp4"]
    assert not found.left_out


def test_videos_without_a_caption_are_left_out_and_counted_by_reason(tmp_path: Path) -> None:
    add(tmp_path, "a.mp4")
    add(tmp_path, "b.mp4", None)
    add(tmp_path, "c.mp4", None)
    add(tmp_path, "d.mp4", b" \n")
    add(tmp_path, "e.mp4", b"x" * 70_000)
    found = find_sources(tmp_path)
    assert len(found.usable) == 1
    assert found.left_out == {
        "missing caption": 2,
        "empty caption": 1,
        "caption file over 64 KiB": 1,
    }


def test_when_no_video_has_a_caption_the_error_says_where_to_write_one(tmp_path: Path) -> None:
    add(tmp_path, "a.mp4", None)
    add(tmp_path, "b.mp4", None)
    with pytest.raises(
        DataError, match=r"none of the 2 videos has a caption.*a\.txt beside a\.mp4"
    ):
        find_sources(tmp_path)


def test_a_folder_without_videos_says_which_files_count(tmp_path: Path) -> None:
    (tmp_path / "notes.doc").touch()
    with pytest.raises(DataError, match=r"holds no video; put files of \.gif, \.jpeg"):
        find_sources(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        find_sources(tmp_path / "nowhere")


def test_a_caption_is_the_first_line_without_marks_of_the_encoding(tmp_path: Path) -> None:
    add(tmp_path, "a.mp4", "\ufeff  a  red\tcat \nmore".encode())
    assert find_sources(tmp_path).usable[0].caption == "a red cat"


@given(raw=st.binary(max_size=2_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_a_caption_or_none(raw: bytes, tmp_path: Path) -> None:
    add(tmp_path, "a.mp4", b"a cat")
    add(tmp_path, "b.mp4", raw)
    found = find_sources(tmp_path)
    for source in found.usable:
        assert 0 < len(source.caption) <= MAX_CAPTION
        assert source.caption == " ".join(source.caption.split())
    assert len(found.usable) + found.left_out.total() == 2


def test_the_fingerprint_changes_with_names_sizes_and_captions(tmp_path: Path) -> None:
    add(tmp_path, "a.mp4")
    prints = {find_sources(tmp_path).fingerprint()}
    add(tmp_path, "a.mp4", b"a dog")
    prints.add(find_sources(tmp_path).fingerprint())
    (tmp_path / "a.mp4").write_bytes(b"longer video")
    prints.add(find_sources(tmp_path).fingerprint())
    add(tmp_path, "b.mp4")
    prints.add(find_sources(tmp_path).fingerprint())
    assert len(prints) == 4
    assert find_sources(tmp_path).fingerprint() in prints
