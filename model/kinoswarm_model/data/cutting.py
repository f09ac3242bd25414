"""One video to the clips that could be used, with what tells them from other videos' clips. Owns what one video gives.

Shapes: N clips, C channels, T frames, H height, W width; S the side of a thumbnail.
"""

import socket
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.decode import Geometry, decode_clips
from kinoswarm_model.data.errors import EngineError, UnreadableVideo
from kinoswarm_model.data.screening import THUMBNAIL, is_static, thumbnail_of
from kinoswarm_model.data.sources import Source


@dataclass(frozen=True)
class Cut:
    """What one video gave."""

    clips: NDArray[np.uint8]
    """(N, C, T, H, W), static ones left out."""
    thumbnails: NDArray[np.uint8]
    """(N, 3, S, S, 3)"""
    num_static: int = 0
    unreadable: str = ""
    """Why the whole video is left out."""


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How videos become clips."""

    geometry: Geometry
    clips_per_video: int

    def __call__(self, source: Source) -> Cut:
        """Decode one video. Raises EngineError when its file is not there: the data did not say so a moment ago."""
        if not source.path.is_file():
            raise EngineError(
                f"{source.path} is not there on {socket.gethostname()}; leave the videos where all machines see them, "
                "and run the same command again"
            )
        try:
            found = decode_clips(source.path, self.geometry, self.clips_per_video, source.span)
        except UnreadableVideo as error:
            return self._cut([], unreadable=error.reason)
        moving = [clip for clip in found if not is_static(clip)]
        return self._cut(moving, num_static=len(found) - len(moving))

    def _cut(
        self, clips: list[NDArray[np.uint8]], num_static: int = 0, unreadable: str = ""
    ) -> Cut:
        size = self.geometry
        shape = (size.frames, size.height, size.width, 3)
        clips_NTHWC = np.array(clips, dtype=np.uint8).reshape(len(clips), *shape)
        thumbnails = np.array([thumbnail_of(clip) for clip in clips], dtype=np.uint8)
        return Cut(
            np.ascontiguousarray(clips_NTHWC.transpose(0, 4, 1, 2, 3)),
            thumbnails.reshape(len(clips), *THUMBNAIL),
            num_static,
            unreadable,
        )
