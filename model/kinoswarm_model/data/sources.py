"""The user's folder: which videos and pictures, with which captions. Owns where captions are looked for."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from kinoswarm_model.data.caption_tables import find_table, read_table
from kinoswarm_model.data.decode import SUFFIXES
from kinoswarm_model.data.errors import DataError

MAX_CAPTION = 1_000
_MAX_CAPTION_FILE = 64 * 1024
_MISSING = "missing caption"


@dataclass(frozen=True)
class Source:
    """One video with its caption."""

    path: Path
    name: str
    """Relative to the folder, with forward slashes."""
    caption: str


@dataclass(frozen=True)
class Sources:
    """What a folder holds; `left_out` counts files by reason."""

    usable: list[Source]
    left_out: "Counter[str]"

    def fingerprint(self) -> str:
        """Changes when names, sizes or captions do; reads no video."""
        digest = hashlib.sha256()
        for source in self.usable:
            line = f"{source.name}\0{source.path.stat().st_size}\0{source.caption}\n"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()


def find_sources(folder: Path, table: Path | None = None) -> Sources:
    """Videos and pictures of a folder (recursively, nothing hidden) that have a caption, in the order of their names.

    A .txt beside the file counts first, then the row of `table` (None: of the one table in the folder) that names it.
    Raises DataError when the folder is missing, holds no video, no video has a caption, or the table can't be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the videos")
    videos = sorted(path for path in folder.rglob("*") if _is_video(path, folder))
    if not videos:
        raise DataError(
            f"{folder} holds no video; put files of {', '.join(sorted(SUFFIXES))} there"
        )
    table = table or find_table(folder)
    captions = Captions(read_table(table) if table else {})
    usable: list[Source] = []
    left_out: Counter[str] = Counter()
    for path in videos:
        name = path.relative_to(folder).as_posix()
        caption, reason = captions.of(path, name)
        if caption:
            usable.append(Source(path, name, caption))
        else:
            left_out[reason] += 1
    if not usable:
        raise DataError(_no_caption(videos, table))
    return Sources(usable, left_out)


def _no_caption(videos: list[Path], table: Path | None) -> str:
    first = videos[0]
    if table is not None:
        return f"{table.name} names none of the {len(videos)} videos; its file column must hold names like {first.name}"
    return (
        f"none of the {len(videos)} videos has a caption; write what is seen in "
        f"{first.with_suffix('.txt').name} beside {first.name}, and so on, or put one table of files and captions "
        "(.csv, .jsonl or .parquet) there"
    )


class Captions:
    """Where a video's caption is looked for."""

    def __init__(self, by_name: dict[str, str]) -> None:
        self._by_name = by_name

    def of(self, video: Path, name: str) -> tuple[str, str]:
        """The caption of a video; or nothing, and why. Tables may name a file with its folders or without."""
        caption, reason = _caption_beside(video)
        if caption or reason != _MISSING or not self._by_name:
            return caption, reason
        for key in (name, video.name, name.rpartition(".")[0], video.stem):
            if key in self._by_name:
                return _tidy(self._by_name[key]), "empty caption"
        return "", "not in the table of captions"


def _is_video(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix.lower() in SUFFIXES and path.is_file()


def _caption_beside(video: Path) -> tuple[str, str]:
    """The first line of the .txt beside a video; or nothing, and why."""
    path = video.with_suffix(".txt")
    if not path.is_file():
        return "", _MISSING
    if path.stat().st_size > _MAX_CAPTION_FILE:
        return "", f"caption file over {_MAX_CAPTION_FILE // 1024} KiB"
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace").strip()
    except OSError:
        return "", "caption file cannot be read"
    return _tidy(text), "empty caption"


def _tidy(text: str) -> str:
    """The first line, single-spaced and bounded."""
    first = text.strip().splitlines()[0] if text.strip() else ""
    return " ".join(first.split())[:MAX_CAPTION]
