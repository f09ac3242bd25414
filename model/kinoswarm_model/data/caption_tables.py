"""Captions from one table: CSV, JSONL or Parquet. Owns finding its columns, and the bounds: it is anybody's file."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from kinoswarm_model.data.errors import DataError

TABLE_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet"})
FILE_COLUMNS = ("file", "file_name", "filename", "path", "video", "image", "name")
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")

_MAX_BYTES = 4 * 1024**3
_MAX_ROWS = 20_000_000
_MAX_LINE = 1024 * 1024
_ROWS_AT_ONCE = 4096


def find_table(folder: Path) -> Path | None:
    """The one table that lies directly in `folder`. Raises DataError when there are several."""
    tables = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in TABLE_SUFFIXES and path.is_file() and path.name[0] != "."
    )
    if len(tables) > 1:
        raise DataError(
            f"{folder} holds {len(tables)} tables ({', '.join(path.name for path in tables[:5])}); "
            "say which one has the captions with --captions"
        )
    return tables[0] if tables else None


def read_table(path: Path) -> dict[str, str]:
    """Captions by file name, as written in the table, with forward slashes; of a name given twice the first one counts.

    Raises DataError naming the table and what is wrong with it.
    """
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is no table of captions; give a .csv, .jsonl or .parquet file")
    captions: dict[str, str] = {}
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path} is larger than any table of captions; split the data set")
        for number, (name, caption) in enumerate(reader(path)):
            if number >= _MAX_ROWS:
                raise DataError(f"{path} has over {_MAX_ROWS} rows; split the data set")
            captions.setdefault(name.replace("\\", "/").removeprefix("./"), caption)
    except (OSError, UnicodeDecodeError, ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"{path} can't be read as a table: {str(error)[:200]}") from error
    return captions


def _csv_rows(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        wanted = _columns(path, rows.fieldnames or ())
        for row in rows:
            yield from _pair(row, wanted)


def _jsonl_rows(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8-sig") as file:
        number = 0
        while line := file.readline(_MAX_LINE):
            number += 1
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not an object")
            yield from _pair(row, _columns(path, row))


def _parquet_rows(path: Path) -> Iterator[tuple[str, str]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"reading {path.name} needs pyarrow: pip install 'kinoswarm[data]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as table:
            wanted = _columns(path, table.schema_arrow.names)
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=list(wanted)):
                for row in batch.to_pylist():
                    yield from _pair(row, wanted)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def _columns(path: Path, names: object) -> tuple[str, str]:
    """The columns of files and captions among these names, by our order of preference."""
    by_lower = {str(name).strip().lower(): str(name) for name in names}  # type: ignore[attr-defined]
    file = next((by_lower[name] for name in FILE_COLUMNS if name in by_lower), None)
    caption = next((by_lower[name] for name in CAPTION_COLUMNS if name in by_lower), None)
    if file is None or caption is None:
        raise DataError(
            f"{path.name} has the columns {', '.join(list(by_lower)[:10])}; it needs one of {', '.join(FILE_COLUMNS)} "
            f"and one of {', '.join(CAPTION_COLUMNS)}"
        )
    return file, caption


def _pair(row: Mapping[str, object], columns: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """Nothing for a row whose file or caption is missing or is no text."""
    name, caption = row.get(columns[0]), row.get(columns[1])
    if isinstance(name, str) and isinstance(caption, str):
        yield name, caption
