"""The user's folder: which videos, with which captions. Owns how captions are found."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from kinoswarm_model.data.decode import VIDEO_SUFFIXES
from kinoswarm_model.data.errors import DataError

MAX_CAPTION = 1_000
_MAX_CAPTION_FILE = 64 * 1024


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


def find_sources(folder: Path) -> Sources:
    """Videos of a folder (recursively) that have a caption beside them, in the order of their names.

    Raises DataError when the folder is missing, holds no video, or no video has a caption.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the videos")
    videos = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() and path.name[0] != "."
    )
    if not videos:
        raise DataError(f"{folder} holds no video ({', '.join(sorted(VIDEO_SUFFIXES))})")
    usable: list[Source] = []
    left_out: Counter[str] = Counter()
    for path in videos:
        caption = _caption_of(path)
        if caption:
            usable.append(Source(path, path.relative_to(folder).as_posix(), caption))
        else:
            left_out["missing caption"] += 1
    if not usable:
        raise DataError(
            f"none of the {len(videos)} videos has a caption; write what is seen in "
            f"{videos[0].with_suffix('.txt').name} beside {videos[0].name}, and so on"
        )
    return Sources(usable, left_out)


def _caption_of(video: Path) -> str:
    """The first line of the .txt beside a video, or nothing."""
    path = video.with_suffix(".txt")
    if not path.is_file() or path.stat().st_size > _MAX_CAPTION_FILE:
        return ""
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    return " ".join(text.splitlines()[0].split())[:MAX_CAPTION] if text else ""
