"""Captions from tables: every kind reads the same, columns are found, and no bytes crash the readers."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from kinoswarm_model.data.caption_tables import find_table, read_table
from kinoswarm_model.data.errors import DataError
from kinoswarm_model.data.sources import find_sources

ROWS = {"a.mp4": "a red, calm sea", "deep/b.gif": 'a "blue" wall'}


def write_table(path: Path, rows: dict[str, str] = ROWS) -> Path:
    names, captions = list(rows), list(rows.values())
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"path": names, "n": [1] * len(rows), "text": captions}), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"file_name": n, "caption": c}) for n, c in rows.items()]
        path.write_text("\n".join([*lines, "", json.dumps({"file_name": 3, "caption": None})]))
    else:
        quoted = ['"' + caption.replace('"', '""') + '"' for caption in captions]
        lines = [f"{n},7,{c}" for n, c in zip(names, quoted, strict=True)]
        path.write_text("\n".join(["Video,id,Caption", *lines]))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_kind_of_table_gives_the_same_captions(suffix: str, tmp_path: Path) -> None:
    assert read_table(write_table(tmp_path / f"captions{suffix}")) == ROWS


def videos(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"video")
    return folder


def test_a_table_in_the_folder_captions_its_files_and_a_txt_comes_first(tmp_path: Path) -> None:
    source = videos(tmp_path / "src", "a.mp4", "deep/b.gif", "c.mp4", "deep/d.png")
    write_table(source / "captions.csv", {**ROWS, "d": "a drawing", "e.mp4": "nothing"})
    (source / "a.txt").write_text("from the text file")
    found = find_sources(source)
    assert {s.name: s.caption for s in found.usable} == {
        "a.mp4": "from the text file",
        "deep/b.gif": 'a "blue" wall',
        "deep/d.png": "a drawing",
    }
    assert found.left_out == {"not in the table of captions": 1}


def test_a_table_elsewhere_is_named_and_several_must_be_chosen_from(tmp_path: Path) -> None:
    source = videos(tmp_path / "src", "a.mp4")
    table = write_table(tmp_path / "elsewhere.jsonl")
    assert find_sources(source, table).usable[0].caption == ROWS["a.mp4"]
    write_table(source / "one.csv")
    write_table(source / "two.csv")
    with pytest.raises(DataError, match=r"2 tables \(one.csv, two.csv\); say which .* --captions"):
        find_table(source)


def test_a_table_that_names_no_file_says_what_its_names_must_look_like(tmp_path: Path) -> None:
    source = videos(tmp_path / "src", "z.mp4")
    write_table(source / "captions.csv")
    with pytest.raises(DataError, match=r"names none of the 1 videos; .* like z.mp4"):
        find_sources(source)


def test_missing_columns_are_listed_with_those_that_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,caption\n1,x\n")
    with pytest.raises(DataError, match="columns id, caption; it needs one of file, "):
        read_table(path)


def test_what_is_no_table_is_refused_in_words(tmp_path: Path) -> None:
    for name, raw in {"t.parquet": b"PAR1", "t.jsonl": b"[1]\n", "u.jsonl": b'{"a": "'}.items():
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(DataError, match=r"can't be read as a table|it needs one of"):
            read_table(tmp_path / name)
    with pytest.raises(DataError, match="no table of captions"):
        read_table(tmp_path / "t.xls")


@given(raw=st.binary(max_size=600), suffix=st.sampled_from([".csv", ".jsonl", ".parquet"]))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150
)
def test_no_bytes_crash_a_reader(raw: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_bytes(raw)
    try:
        found = read_table(path)
    except DataError:
        return
    assert all(isinstance(caption, str) for caption in found.values())
