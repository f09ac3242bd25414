"""Video files to clips of fixed geometry through PyAV. Owns the bounds on what is decoded; files are hostile.

Shapes: T frames, H height, W width.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.errors import UnreadableVideo
from kinoswarm_model.data.tar_members import Span, SpanReader

VIDEO_SUFFIXES = frozenset({".mp4", ".webm", ".mov", ".mkv", ".gif"})
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
"""A picture is a video of one frame: for swarms of pictures (--frames 1)."""
SUFFIXES = VIDEO_SUFFIXES | PICTURE_SUFFIXES

_MAX_PIXELS = 8_192 * 4_320  # 8K
_MAX_FRAMES_READ = 100_000  # an hour at 28 frames a second
_LIMITS = {"max_pixels": str(_MAX_PIXELS)}
_MOST_RATE, _LEAST_RATE = (
    1_000.0,
    0.01,
)  # frames a second that a file may state; others are taken for errors


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What every clip is brought to."""

    frames: int
    height: int
    width: int
    fps: int


def decode_clips(
    path: Path, geometry: Geometry, max_clips: int, span: Span | None = None
) -> list[NDArray[np.uint8]]:
    """Cut a video into up to `max_clips` clips (T, H, W, 3) at the wanted rate, scaled and centre-cropped.

    With `span` the video is that part of the file: a member of a tar file.

    Raises UnreadableVideo when it is shorter than one clip or damaged before the last wanted one.
    """
    clips: list[NDArray[np.uint8]] = []
    pending: list[NDArray[np.uint8]] = []
    for frame in _frames_at_rate(path, geometry, span):
        pending.append(frame)
        if len(pending) == geometry.frames:
            clips.append(np.stack(pending))
            pending = []
            if len(clips) == max_clips:
                break
    if not clips:
        raise UnreadableVideo(path.name, _too_short(len(pending), geometry))
    return clips


def _too_short(found: int, geometry: Geometry) -> str:
    if not found:
        return "holds no pictures"
    return f"too short, under {geometry.frames} frames at {geometry.fps}/s"


def _frames_at_rate(
    path: Path, geometry: Geometry, span: Span | None
) -> Iterator[NDArray[np.uint8]]:
    """Scaled frames at `fps`: the frame that is shown at each multiple of 1 / fps."""
    import av

    try:
        if (span.size_bytes if span else path.stat().st_size) == 0:
            raise UnreadableVideo(path.name, "the file is empty")
        with ExitStack() as stack:
            file: str | SpanReader = str(path)
            if span is not None:
                file = stack.enter_context(SpanReader(path.open("rb"), span))
            container = stack.enter_context(av.open(file, options=_LIMITS))
            if not container.streams.video:
                raise UnreadableVideo(path.name, "holds no pictures")
            yield from _sampled(container, path, geometry)
    except (av.FFmpegError, OSError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise UnreadableVideo(path.name, "cannot be decoded") from error


def _sampled(container: Any, path: Path, geometry: Geometry) -> Iterator[NDArray[np.uint8]]:
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise UnreadableVideo(path.name, "of a codec that this program lacks")
    stream.thread_count = 1
    _check_size(path, stream.width or 0, stream.height or 0)
    rate = float(stream.average_rate or geometry.fps)
    if not _LEAST_RATE <= rate <= _MOST_RATE:
        rate = float(geometry.fps)
    next_time, start = 0.0, None
    for index, frame in enumerate(container.decode(stream)):
        if index >= _MAX_FRAMES_READ:
            return
        _check_size(path, frame.width, frame.height)
        time = frame.time if frame.time is not None else index / rate
        start = time if start is None else start
        # Half a source frame of tolerance: rounding must not drop the frame that is due now.
        while time - start + 0.5 / rate >= next_time:
            yield _fitted(frame, geometry.height, geometry.width)
            next_time += 1.0 / geometry.fps


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > _MAX_PIXELS:
        raise UnreadableVideo(path.name, f"pictures of over {_MAX_PIXELS} pixels")


def _fitted(frame: Any, height: int, width: int) -> NDArray[np.uint8]:
    """Scaled to cover (height, width), area-averaged, then centre-cropped."""
    from PIL import Image

    pixels = frame.to_ndarray(format="rgb24")
    if (frame.height, frame.width) == (height, width):
        return np.asarray(pixels)
    image = Image.fromarray(pixels)
    scale = max(height / image.height, width / image.width)
    crop_width, crop_height = min(image.width, width / scale), min(image.height, height / scale)
    left, top = (image.width - crop_width) / 2, (image.height - crop_height) / 2
    box = (left, top, left + crop_width, top + crop_height)
    # Box averaging is exact when shrinking; when enlarging it would repeat pixels.
    filter_ = Image.Resampling.BOX if scale <= 1 else Image.Resampling.BICUBIC
    return np.asarray(image.resize((width, height), filter_, box=box))
