"""WebDataset tar files as input: the same clips as from a folder, and archives that are odd, damaged or hostile."""

import io
import tarfile
from pathlib import Path
from random import Random

import numpy as np
import pytest
from data.tiny_videos import counting, striped, write_video
from fuzz.mutation import mutated
from PIL import Image

from kinoswarm_model.data.decode import SUFFIXES, Geometry, decode_clips
from kinoswarm_model.data.errors import DataError
from kinoswarm_model.data.prepare import PrepareConfig, prepare
from kinoswarm_model.data.shards import read_shard
from kinoswarm_model.data.sources import find_sources
from kinoswarm_model.data.tar_members import Span, SpanReader, tar_samples

GEOMETRY = Geometry(frames=4, height=32, width=32, fps=8)
CAPTION = b"a stripe moves right"


def write_tar(path: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, raw in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.type = len(raw), kind
            archive.addfile(member, io.BytesIO(raw))
    return path


def video(folder: Path, suffix: str = ".mp4", start: int = 0) -> bytes:
    path = folder / f".video{suffix}"
    return write_video(path, striped((200, 20, 20), start=start), 8).read_bytes()


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv", ".gif"])
def test_a_video_inside_a_tar_gives_the_clips_of_the_same_file_outside(
    tmp_path: Path, suffix: str
) -> None:
    alone = write_video(tmp_path / f"v{suffix}", counting(8), 8)
    packed = {"a.txt": b"first", f"0{suffix}": alone.read_bytes(), "0.txt": CAPTION}
    write_tar(tmp_path / "data.tar", packed)
    [source] = [s for s in find_sources(tmp_path, None).usable if s.span is not None]
    inside = decode_clips(source.path, GEOMETRY, 9, source.span)
    assert np.array_equal(inside, decode_clips(alone, GEOMETRY, 9))


def test_a_picture_inside_a_tar_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(striped((0, 90, 0))[0]).save(out, "png")
    write_tar(
        tmp_path / "data.tar", {"a/b.png": out.getvalue(), "a/b.json": b'{"Caption": "green"}'}
    )
    [source] = find_sources(tmp_path / "data.tar").usable
    assert (source.name, source.caption) == ("data.tar/a/b.png", "green")
    still = Geometry(frames=1, height=32, width=32, fps=8)
    [clip] = decode_clips(source.path, still, 1, source.span)
    assert np.array_equal(clip, striped((0, 90, 0))[:1])


def test_a_folder_of_tars_prepares_to_the_same_shards_as_a_folder_of_files(
    clips: Path, tmp_path: Path
) -> None:
    files = sorted(clips.iterdir())
    (tmp_path / "packed").mkdir()
    for number, part in enumerate((files[:20], files[20:])):
        write_tar(
            tmp_path / f"packed/{number:04d}.tar",
            {path.name: path.read_bytes() for path in part},
        )
    config = PrepareConfig(num_clusters=2, shard_clips=8)
    ours = prepare(tmp_path / "packed", tmp_path / "ours", config)
    theirs = prepare(clips, tmp_path / "theirs", config)
    assert ours.clusters == theirs.clusters
    for cluster in ours.clusters:
        for file in cluster.shards:
            one, other = (read_shard(tmp_path / f / file.path) for f in ("ours", "theirs"))
            assert np.array_equal(one.clips, other.clips)
            assert one.captions == other.captions


def test_samples_are_told_apart_by_the_path_up_to_the_first_dot(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "data.tar",
        {
            "x/1.mp4": b"v",
            "x/1.txt": b"in x",
            "y/1.mp4": b"v",
            "y/1.txt": b"in y",
            "z.high.mp4": b"v",
            "z.txt": b"of z",
            ".hidden.mp4": b"v",
            "plain": b"v",
            "notes.cls": b"3",
        },
    )
    found = find_sources(tmp_path)
    assert {source.name: source.caption for source in found.usable} == {
        "data.tar/x/1.mp4": "in x",
        "data.tar/y/1.mp4": "in y",
        "data.tar/z.high.mp4": "of z",
    }


def test_what_lacks_a_caption_is_left_out_with_its_reason_or_named_by_a_table(
    tmp_path: Path,
) -> None:
    members = {
        "0.mp4": b"v",
        "0.txt": CAPTION,
        "1.mp4": b"v",
        "2.mp4": b"v",
        "2.txt": b" ",
        "3.mp4": b"v",
        "3.json": b'{"caption": 5}',
        "4.mp4": b"v",
        "4.json": b"{",
        "5.mp4": b"v",
        "5.txt": b"x" * 70_000,
    }
    write_tar(tmp_path / "data.tar", members)
    assert find_sources(tmp_path).left_out == {
        "missing caption": 2,
        "empty caption": 1,
        "caption file cannot be read": 1,
        "caption file over 64 KiB": 1,
    }
    (tmp_path / "captions.csv").write_text("file,caption\n1.mp4,from the table\n")
    captions = {source.name: source.caption for source in find_sources(tmp_path).usable}
    assert captions["data.tar/1.mp4"] == "from the table"


def test_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
        write_tar(tmp_path / "data.tar", {"../../etc/0.mp4": b""}, kind)
        assert tar_samples(tmp_path / "data.tar", SUFFIXES) == []
    with pytest.raises(DataError, match="holds no video"):
        find_sources(tmp_path)


def test_a_cut_off_or_foreign_archive_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "data.tar", {"0.mp4": b"v" * 5_000})
    path.write_bytes(path.read_bytes()[:3_000])
    with pytest.raises(DataError, match=r"data\.tar can't be read as a tar file"):
        find_sources(tmp_path)
    path.write_bytes(b"no archive at all" * 100)
    with pytest.raises(DataError, match="copy it again, or leave it out"):
        find_sources(tmp_path)


def test_a_member_of_negative_size_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "data.tar", {"0.txt": CAPTION})
    member = tarfile.TarInfo("0.txt")
    member.size = -(2**40)
    header = member.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(header + path.read_bytes())
    with pytest.raises(DataError, match="can't be read as a tar file"):
        tar_samples(path, SUFFIXES)


def test_a_compressed_archive_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "data.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match=r"compressed archive: unpack it"):
        find_sources(tmp_path)


def test_a_damaged_member_costs_that_video_alone(tmp_path: Path) -> None:
    broken = b"\0" * 4_000
    members = {"a.mp4": broken, "a.txt": CAPTION}
    for index in range(4):
        members |= {f"{index}.mp4": video(tmp_path, start=5 * index), f"{index}.txt": CAPTION}
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in/data.tar", members)
    manifest = prepare(tmp_path / "in", tmp_path / "out", PrepareConfig(num_clusters=1))
    assert manifest.left_out == {"cannot be decoded": 1}
    assert manifest.num_sources == 5


def test_a_member_can_not_be_read_beyond_its_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before|inside|after")
    with SpanReader(path.open("rb"), Span(7, 6)) as reader:
        assert reader.read() == b"inside"
        assert reader.seek(-2, io.SEEK_END) == 4
        assert reader.read(100) == b"de"
        assert reader.seek(50) == 50
        assert reader.read(1) == b""
        with pytest.raises(ValueError, match="before the start"):
            reader.seek(-1)


def test_changed_archives_are_read_or_refused_with_our_error(tmp_path: Path) -> None:
    good = {"0.mp4": b"v" * 700, "0.txt": CAPTION, "1.json": b'{"text": "x"}', "1.png": b"p"}
    raw = write_tar(tmp_path / "data.tar", good).read_bytes()
    chance, refused = Random(7), 0
    for _ in range(300):
        changed = mutated(raw, chance, 2 * len(raw))
        (tmp_path / "data.tar").write_bytes(changed)
        try:
            samples = tar_samples(tmp_path / "data.tar", SUFFIXES)
        except DataError:
            refused += 1
            continue
        spans = [sample.video[1] for sample in samples if sample.video is not None]
        assert all(span.offset + span.size_bytes <= len(changed) for span in spans)
    assert 0 < refused < 300
