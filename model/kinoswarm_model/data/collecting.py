"""Clips of all videos of a folder, spooled to one file so that memory does not bound how many. Owns that file."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.decode import Geometry, decode_clips
from kinoswarm_model.data.errors import DataError, UnreadableVideo
from kinoswarm_model.data.sources import Sources

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Collected:
    """Decoded clips with their captions and videos; what could not be used, by reason."""

    clips: NDArray[np.uint8]
    """(N, C, T, H, W), a read-only mapping of the spool file."""
    captions: list[str]
    video_of_clip: NDArray[np.int64]
    left_out: "Counter[str]"
    num_sources: int


def collect(
    sources: Sources, geometry: Geometry, clips_per_video: int, spool: Path, report: Progress
) -> Collected:
    """Decode every usable video, in order, into `spool`. A damaged video is left out whole.

    Raises DataError when no clip could be made of any video.
    """
    captions: list[str] = []
    videos: list[int] = []
    left_out = Counter(sources.left_out)
    first_problem: UnreadableVideo | None = None
    with spool.open("wb") as file:
        for index, source in enumerate(sources.usable):
            try:
                clips = decode_clips(source.path, geometry, clips_per_video)
            except UnreadableVideo as error:
                left_out[error.reason] += 1
                first_problem = first_problem or error
                clips = []
            for clip in clips:
                file.write(np.ascontiguousarray(clip.transpose(3, 0, 1, 2)).data)
            captions += [source.caption] * len(clips)
            videos += [index] * len(clips)
            report(index + 1, len(sources.usable), "decoding videos")
    if not captions:
        count = len(sources.usable)
        raise DataError(
            f"no clip could be made of {count} video{'s' * (count != 1)}; the first problem: {first_problem}"
        ) from first_problem
    shape = (len(captions), 3, geometry.frames, geometry.height, geometry.width)
    clips_file = np.memmap(spool, np.uint8, mode="r", shape=shape)
    return Collected(clips_file, captions, np.array(videos), left_out, len(sources.usable))
