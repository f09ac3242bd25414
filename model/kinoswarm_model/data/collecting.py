"""Clips of all videos of a folder, spooled to one file so that memory does not bound how many. Owns that file and its
journal, through which an interrupted run goes on where it stopped.

A journal line is written after the clips of its video: a kill between the two costs that one video's decoding. Journal
lines whose clips are not in the spool (a power cut) are dropped.
"""

import copy
import functools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from kinoswarm_model.data.cutting import Cut, Cutting
from kinoswarm_model.data.engine import Engine, Work
from kinoswarm_model.data.errors import DataError, UnreadableVideo
from kinoswarm_model.data.row_file import RowFile
from kinoswarm_model.data.screening import DUPLICATE, STATIC, Screen
from kinoswarm_model.data.sources import Source, Sources
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import MalformedBytes

Progress = Callable[[int, int, str], None]

_SYNC_EVERY = 256
"""Videos between two syncs of the spool: what a power cut may cost."""
_RECALLED_AT_ONCE = 64
_MOST_VIDEOS = 32
"""In one task of an engine: seconds of work."""


class Decoded(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A journal line: what one video gave."""

    num_clips: int
    left_out: dict[str, int]
    problem: str = ""
    """Why the whole video is left out."""


@dataclass(frozen=True)
class Collected:
    """Decoded clips with their captions and videos; what could not be used, by reason."""

    clips: RowFile[np.uint8]
    """(C, T, H, W) each."""
    captions: list[str]
    video_of_clip: NDArray[np.int64]
    left_out: "Counter[str]"
    num_sources: int


@dataclass
class _Collecting:
    """A run through the videos, from its first or from where the last run stopped."""

    sources: Sequence[Source]
    cutting: Cutting
    spool: RowFile[np.uint8]
    journal: Path
    engine: Engine
    screen: Screen = field(default_factory=Screen)

    def run(self, report: Progress) -> list[Decoded]:
        """What every video gave, in order."""
        done = self._recalled()
        total = len(self.sources)
        work = Work(
            run=self.cutting,
            load=functools.partial(copy.copy, self.cutting),
            most_at_once=_MOST_VIDEOS,
        )
        cuts = self.engine.map(work, self.sources[len(done) :])
        with self.journal.open("ab") as file:
            for index, cut in enumerate(cuts, len(done)):
                clips, entry = self._screened(self.sources[index], cut)
                self.spool.append(clips)
                file.write(msgspec.json.encode(entry) + b"\n")
                file.flush()
                done.append(entry)
                if index % _SYNC_EVERY == _SYNC_EVERY - 1:
                    self.spool.sync()
                report(index + 1, total, "decoding videos")
        self.spool.sync()
        return done

    def _screened(self, source: Source, cut: Cut) -> tuple[NDArray[np.uint8], Decoded]:
        """(N, C, T, H, W) of the clips that are used, and the journal's line."""
        new = np.array([not self.screen.has(one) for one in cut.thumbnails], dtype=np.bool_)
        left_out = {STATIC: cut.num_static, DUPLICATE: int(len(new) - new.sum())}
        problem = ""
        if cut.unreadable:
            left_out[cut.unreadable] = 1
            problem = str(UnreadableVideo(source.name, cut.unreadable))
        counts = {reason: count for reason, count in sorted(left_out.items()) if count}
        return cut.clips[new], Decoded(int(new.sum()), counts, problem)

    def _recalled(self) -> list[Decoded]:
        """The journal's lines that hold; the spool and the journal are cut to them, the screen remembers the clips."""
        entries: list[Decoded] = []
        clips = size = 0
        for line in self.journal.read_bytes().splitlines(True) if self.journal.exists() else []:
            try:
                entry = decode_json(line, Decoded)
            except MalformedBytes:
                break
            if not line.endswith(b"\n") or clips + entry.num_clips > len(self.spool):
                break
            entries.append(entry)
            clips, size = clips + entry.num_clips, size + len(line)
        self.spool.truncate(clips)
        self.journal.touch()
        with self.journal.open("r+b") as file:
            file.truncate(size)
        for batch in self.spool.batches(_RECALLED_AT_ONCE):
            for clip in batch:
                self.screen.reason_against(clip.transpose(1, 2, 3, 0))
        return entries


def collect(
    sources: Sources, cutting: Cutting, folder: Path, report: Progress, engine: Engine
) -> Collected:
    """Decode every usable video, in order, into a spool in `folder`. A damaged video is left out whole.

    Raises DataError when no clip could be made of any video.
    """
    geometry = cutting.geometry
    shape = (3, geometry.frames, geometry.height, geometry.width)
    spool: RowFile[np.uint8] = RowFile(folder / "clips", np.uint8, shape)
    journal = folder / "journal"
    done = _Collecting(sources.usable, cutting, spool, journal, engine).run(report)
    left_out = Counter(sources.left_out)
    captions: list[str] = []
    videos: list[int] = []
    for index, entry in enumerate(done):
        left_out.update(entry.left_out)
        captions += [sources.usable[index].caption] * entry.num_clips
        videos += [index] * entry.num_clips
    if not captions:
        raise DataError(_no_clip(done))
    return Collected(spool, captions, np.array(videos), left_out, len(sources.usable))


def _no_clip(done: Sequence[Decoded]) -> str:
    problem = next((entry.problem for entry in done if entry.problem), "")
    problem = problem or json.dumps(done[0].left_out)
    return (
        f"no clip could be made of {len(done)} video{'s' * (len(done) != 1)}; "
        f"the first problem: {problem}"
    )
