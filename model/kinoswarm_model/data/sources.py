"""The user's folder: which videos and pictures, with which captions, as files and inside tar files. Owns where captions
are looked for.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kinoswarm_model.data.caption_tables import find_table, read_table
from kinoswarm_model.data.decode import SUFFIXES
from kinoswarm_model.data.errors import DataError
from kinoswarm_model.data.tar_members import (
    PACKED_SUFFIXES,
    TAR_SUFFIX,
    Span,
    caption_of,
    tar_samples,
)

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
    span: Span | None = None
    """Where its bytes lie, when `path` is a tar file."""

    @property
    def size_bytes(self) -> int:
        return self.span.size_bytes if self.span is not None else self.path.stat().st_size


@dataclass(frozen=True)
class Sources:
    """What a folder holds; `left_out` counts files by reason."""

    usable: list[Source]
    left_out: "Counter[str]"

    def fingerprint(self) -> str:
        """Changes when names, sizes or captions do; reads no video."""
        digest = hashlib.sha256()
        for source in self.usable:
            line = f"{source.name}\0{source.size_bytes}\0{source.caption}\n"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()


def find_sources(folder: Path, table: Path | None = None) -> Sources:
    """Videos and pictures of a folder (recursively, nothing hidden) that have a caption, in the order of their names.

    Tar files there, or `folder` itself when it is one, are read as WebDataset packs them. A caption beside the video
    counts first, then the row of `table` (None: of the one table in the folder) that names it.
    Raises DataError when the folder is missing, holds no video, no video has a caption, or a table or tar file can't
    be read.
    """
    if not folder.is_dir() and not _is_archive(folder):
        raise DataError(f"{folder} is not a folder; give the folder that holds the videos")
    left_out: Counter[str] = Counter()
    found = sorted(_found(folder, left_out), key=lambda one: one.name)
    if not found:
        packed = f" ({next(iter(left_out))})" if left_out else ""
        raise DataError(
            f"{folder} holds no video{packed}; put files of {', '.join(sorted(SUFFIXES))} there, or a .tar of them"
        )
    table = table or (find_table(folder) if folder.is_dir() else None)
    captions = Captions(read_table(table) if table else {})
    usable: list[Source] = []
    for one in found:
        caption, reason = captions.of(one.beside, one.name)
        if caption:
            usable.append(Source(one.path, one.name, caption, one.span))
        else:
            left_out[reason] += 1
    if not usable:
        raise DataError(_no_caption(found, table))
    return Sources(usable, left_out)


@dataclass(frozen=True)
class _Video:
    """One that was found, and what lies beside it: its caption, or nothing and why."""

    path: Path
    name: str
    beside: tuple[str, str]
    span: Span | None = None


def _found(folder: Path, left_out: "Counter[str]") -> Iterator[_Video]:
    paths = sorted(folder.rglob("*")) if folder.is_dir() else [folder]
    base = folder if folder.is_dir() else folder.parent
    for path in paths:
        name = path.relative_to(base).as_posix()
        if any(part.startswith(".") for part in name.split("/")) or not path.is_file():
            continue
        if path.suffix.lower() in SUFFIXES:
            yield _Video(path, name, _caption_beside(path))
        elif _is_archive(path):
            yield from _packed(path, name)
        elif path.name.lower().endswith(PACKED_SUFFIXES):
            left_out["compressed archive: unpack it, or pack it again as .tar"] += 1


def _packed(path: Path, name: str) -> Iterator[_Video]:
    for sample in tar_samples(path, SUFFIXES):
        assert sample.video is not None
        member, span = sample.video
        text, reason = caption_of(sample)
        yield _Video(path, f"{name}/{member}", (_tidy(text), reason), span)


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == TAR_SUFFIX and path.is_file()


def _no_caption(videos: list[_Video], table: Path | None) -> str:
    first = PurePosixPath(videos[0].name)
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

    def of(self, beside: tuple[str, str], name: str) -> tuple[str, str]:
        """The caption of a video; or nothing, and why. Tables may name a file with its folders or without."""
        caption, reason = beside
        if caption or reason != _MISSING or not self._by_name:
            return caption, reason
        video = PurePosixPath(name)
        for key in (name, video.name, name.rpartition(".")[0], video.stem):
            if key in self._by_name:
                return _tidy(self._by_name[key]), "empty caption"
        return "", "not in the table of captions"


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
