"""Video files to clips of fixed geometry through PyAV. Owns the bounds on what is decoded; files are hostile."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.errors import UnreadableVideo

VIDEO_SUFFIXES = frozenset({".mp4", ".webm", ".mov", ".mkv", ".gif"})
_MAX_PIXELS = 8_192 * 4_320
_MAX_FRAMES_READ = 100_000


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What every clip is brought to."""

    frames: int
    height: int
    width: int
    fps: int


def decode_clips(path: Path, geometry: Geometry, max_clips: int) -> Iterator[NDArray[np.uint8]]:
    """Cut a video into up to `max_clips` clips (T, H, W, 3) at the wanted rate, scaled and centre-cropped.

    Raises UnreadableVideo when nothing can be decoded or it is shorter than one clip.
    """
    num_clips = 0
    pending: list[NDArray[np.uint8]] = []
    for frame in _frames_at_rate(path, geometry):
        pending.append(frame)
        if len(pending) == geometry.frames:
            yield np.stack(pending)
            pending, num_clips = [], num_clips + 1
            if num_clips == max_clips:
                return
    if num_clips == 0:
        found = f"{len(pending)} frames at {geometry.fps}/s, {geometry.frames} are needed"
        raise UnreadableVideo(path.name, f"too short ({found})" if pending else "holds no video")


def _frames_at_rate(path: Path, geometry: Geometry) -> Iterator[NDArray[np.uint8]]:
    """Scaled frames at `fps`: the frame that is shown at each multiple of 1 / fps."""
    import av

    if path.stat().st_size == 0:
        raise UnreadableVideo(path.name, "the file is empty")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UnreadableVideo(path.name, "holds no video")
            yield from _sampled(container, path, geometry)
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise UnreadableVideo(path.name, "cannot be decoded") from error


def _sampled(container: Any, path: Path, geometry: Geometry) -> Iterator[NDArray[np.uint8]]:
    stream = container.streams.video[0]
    stream.thread_count = 1
    if (stream.width or 0) * (stream.height or 0) > _MAX_PIXELS:
        raise UnreadableVideo(path.name, f"pictures of {stream.width}x{stream.height} are too big")
    rate = float(stream.average_rate or geometry.fps)
    next_time, start = 0.0, None
    for index, frame in enumerate(container.decode(stream)):
        if index >= _MAX_FRAMES_READ:
            return
        time = frame.time if frame.time is not None else index / rate
        start = time if start is None else start
        # Half a source frame of tolerance: rounding must not drop the frame that is due now.
        while time - start + 0.5 / rate >= next_time:
            yield _fitted(frame, geometry.height, geometry.width)
            next_time += 1.0 / geometry.fps


def _fitted(frame: Any, height: int, width: int) -> NDArray[np.uint8]:
    """Scaled to cover (height, width), area-averaged, then centre-cropped."""
    from PIL import Image

    if (frame.height, frame.width) == (height, width):
        return np.asarray(frame.to_ndarray(format="rgb24"))
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    scale = max(height / image.height, width / image.width)
    crop_width, crop_height = min(image.width, width / scale), min(image.height, height / scale)
    left, top = (image.width - crop_width) / 2, (image.height - crop_height) / 2
    box = (left, top, left + crop_width, top + crop_height)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX, box=box))
