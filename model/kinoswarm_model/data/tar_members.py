"""Videos inside tar files as WebDataset packs them. Owns reading those archives; nothing is ever unpacked to disk.

A sample is all members of one key: the path up to the first dot of its file name (the convention of the webdataset
library). The video and its caption (`.txt`, or a `.json` with a caption's column) share a key. Archives are
anybody's: links, devices and sparse files are passed over, sizes are bounded, and names are never used as paths.
"""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from kinoswarm_model.data.caption_tables import CAPTION_COLUMNS
from kinoswarm_model.data.errors import DataError
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import MalformedBytes

TAR_SUFFIX = ".tar"
PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
"""Compressed archives can't be read from the middle."""

_MAX_MEMBERS = 2_000_000
_MAX_CAPTION_BYTES = 64 * 1024
_CAPTION_ENDINGS = ("txt", "json")


@dataclass(frozen=True)
class Span:
    """Where a member's bytes lie in its archive."""

    offset: int
    size_bytes: int


@dataclass
class TarSample:
    """One key of an archive."""

    key: str
    video: tuple[str, Span] | None = None
    """Name inside the archive and place of its first video or picture."""
    texts: dict[str, str] = field(default_factory=dict)
    """Contents of the caption files, by their ending."""
    problem: str = ""
    """Why its caption can't be used."""


def tar_samples(path: Path, suffixes: frozenset[str]) -> list[TarSample]:
    """All samples of an archive that have a video, in the order of their keys.

    Raises DataError when it is no tar file, is cut off or holds too much.
    """
    samples: dict[str, TarSample] = {}
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            for member in _members(file, path):
                _take(samples, member, file, size, suffixes)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
        raise DataError(
            f"{path} can't be read as a tar file ({str(error)[:100]}); copy it again, or leave it out"
        ) from error
    return [samples[key] for key in sorted(samples) if samples[key].video is not None]


def caption_of(sample: TarSample) -> tuple[str, str]:
    """The caption that lies beside the video under its key; or nothing, and why."""
    if sample.problem:
        return "", sample.problem
    if "txt" in sample.texts:
        return sample.texts["txt"], "empty caption"
    if "json" not in sample.texts:
        return "", "missing caption"
    try:
        found = decode_json(sample.texts["json"].encode(), dict[str, Any])
    except (MalformedBytes, RecursionError):
        return "", "caption file cannot be read"
    by_lower = {str(name).lower(): value for name, value in found.items()}
    values = (by_lower.get(name) for name in CAPTION_COLUMNS)
    return next((value for value in values if isinstance(value, str)), ""), "missing caption"


class SpanReader(io.RawIOBase):
    """A member of an archive as a file of its own: what lies outside can't be read. Closing closes the archive."""

    def __init__(self, file: IO[bytes], span: Span) -> None:
        self._file, self._span, self._at = file, span, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._span.size_bytes}[whence]
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset}: before the start")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._span.size_bytes - self._at))
        self._file.seek(self._span.offset + self._at)
        found = self._file.read(wanted)
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def close(self) -> None:
        self._file.close()
        super().close()


def _members(file: IO[bytes], path: Path) -> Iterator[tarfile.TarInfo]:
    """Regular files of an uncompressed archive, one after the other; the list that tarfile keeps is emptied."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        count = 0
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # typeshed lacks it
            count += 1
            if count > _MAX_MEMBERS:
                raise DataError(f"{path} has over {_MAX_MEMBERS} members; split it")
            if member.size < 0:
                raise ValueError("a member of negative size")
            if member.isreg() and not member.issparse():
                yield member


def _take(
    samples: dict[str, TarSample],
    member: tarfile.TarInfo,
    file: IO[bytes],
    archive_bytes: int,
    suffixes: frozenset[str],
) -> None:
    folder, _, name = member.name.rpartition("/")
    stem, dot, ending = name.partition(".")
    if not stem or not dot:
        return  # hidden, or without an ending
    key = f"{folder}/{stem}" if folder else stem
    span = Span(member.offset_data, member.size)
    if span.offset + span.size_bytes > archive_bytes:
        raise ValueError(f"{name[:60]} is cut off")
    suffix = "." + ending.rpartition(".")[2].lower()
    if suffix not in suffixes and ending.lower() not in _CAPTION_ENDINGS:
        return
    sample = samples.setdefault(key, TarSample(key))
    if suffix in suffixes:
        sample.video = sample.video or (member.name, span)
    elif span.size_bytes > _MAX_CAPTION_BYTES:
        sample.problem = f"caption file over {_MAX_CAPTION_BYTES // 1024} KiB"
    else:
        sample.texts[ending.lower()] = _text_at(file, span)


def _text_at(file: IO[bytes], span: Span) -> str:
    """tarfile seeks to every header itself, so the file's position is free to use."""
    file.seek(span.offset)
    return file.read(span.size_bytes).decode("utf-8-sig", errors="replace")
