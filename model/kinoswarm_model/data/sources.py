"""The user's folder: which videos, with which captions. Owns how captions are found; tables may join the .txt files."""

import hashlib
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

    def fingerprint(self) -> str:
        """Changes when names, sizes or captions do; reads no video."""
        digest = hashlib.sha256()
        for source in self.usable:
            line = f"{source.name}\0{source.path.stat().st_size}\0{source.caption}\n"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()


def find_sources(folder: Path) -> Sources:
    """Videos of a folder (recursively, nothing hidden) that have a caption beside them, in the order of their names.

    Raises DataError when the folder is missing, holds no video, or no video has a caption.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the videos")
    videos = sorted(path for path in folder.rglob("*") if _is_video(path, folder))
    if not videos:
        raise DataError(
            f"{folder} holds no video; put files of {', '.join(sorted(VIDEO_SUFFIXES))} there"
        )
    usable: list[Source] = []
    left_out: Counter[str] = Counter()
    for path in videos:
        caption, reason = _caption_of(path)
        if caption:
            usable.append(Source(path, path.relative_to(folder).as_posix(), caption))
        else:
            left_out[reason] += 1
    if not usable:
        raise DataError(
            f"none of the {len(videos)} videos has a caption; write what is seen in "
            f"{videos[0].with_suffix('.txt').name} beside {videos[0].name}, and so on"
        )
    return Sources(usable, left_out)


def _is_video(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def _caption_of(video: Path) -> tuple[str, str]:
    """The first line of the .txt beside a video; or nothing, and why."""
    path = video.with_suffix(".txt")
    if not path.is_file():
        return "", "missing caption"
    if path.stat().st_size > _MAX_CAPTION_FILE:
        return "", f"caption file over {_MAX_CAPTION_FILE // 1024} KiB"
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace").strip()
    except OSError:
        return "", "caption file cannot be read"
    first = text.splitlines()[0] if text else ""
    return " ".join(first.split())[:MAX_CAPTION], "empty caption"
