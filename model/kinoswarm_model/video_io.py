"""Clips to and from video files. Owns encoding, and plain decoding of our own files; equal frames give equal bytes.

Strangers' videos are decoded by data/decode.py, which is bounded.
"""

import io
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.atomic_file import write_atomically
from kinoswarm_protocol.errors import LocalError

Clip = NDArray[np.uint8]
"""(T, H, W, 3) RGB."""

Enlarging = Literal["repeat", "smooth"]
"""Pixels repeated, or interpolated (Lanczos)."""

_MAX_FRAMES = 100_000


def write_mp4(
    path: Path,
    clip: Clip,
    fps: int,
    *,
    scale: int = 1,
    crf: int = 10,
    enlarging: Enlarging = "repeat",
) -> None:
    """Write an H.264 mp4 atomically, `scale` times as large so that small clips can be watched."""
    write_atomically(path, mp4_bytes(clip, fps, scale=scale, crf=crf, enlarging=enlarging))


def mp4_bytes(
    clip: Clip, fps: int, *, scale: int = 1, crf: int = 10, enlarging: Enlarging = "repeat"
) -> bytes:
    """An H.264 mp4. One thread and no timestamps of the day: the same frames give the same bytes.

    Raises LocalError when there is nothing to encode.
    """
    if clip.ndim != 4 or clip.shape[-1] != 3 or 0 in clip.shape:
        raise LocalError(f"a clip to write must be (T, H, W, 3) and not empty, got {clip.shape}")
    # Full chroma keeps small training clips exact; enlarged ones use what every browser plays.
    pixel_format = "yuv444p" if scale == 1 else "yuv420p"
    return _encoded(_even(_enlarged(clip, scale, enlarging)), fps, crf, pixel_format)


def read_clip(path: Path) -> Clip:
    """All frames of a video. Raises LocalError when there are none or it cannot be decoded."""
    import av

    try:
        with av.open(str(path)) as container:
            decoded = zip(range(_MAX_FRAMES), container.decode(video=0), strict=False)
            frames = [frame.to_ndarray(format="rgb24") for _, frame in decoded]
    except (av.FFmpegError, OSError, IndexError) as error:
        raise LocalError(
            f"{path.name} cannot be read as a video ({error}); check the file"
        ) from error
    if not frames:
        raise LocalError(f"{path.name} holds no frames; check the file")
    return np.stack(frames)


def _enlarged(clip: Clip, scale: int, enlarging: Enlarging) -> Clip:
    if enlarging == "repeat" or scale == 1:
        return clip.repeat(scale, axis=1).repeat(scale, axis=2)
    from PIL import Image

    size = (clip.shape[2] * scale, clip.shape[1] * scale)
    lanczos = Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, lanczos)) for frame in clip])


def _even(clip: Clip) -> Clip:
    """Edges padded to even sizes, which H.264 needs."""
    odd_rows, odd_columns = clip.shape[1] % 2, clip.shape[2] % 2
    if not odd_rows and not odd_columns:
        return clip
    return np.pad(clip, ((0, 0), (0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")


def _encoded(clip: Clip, fps: int, crf: int, pixel_format: str) -> bytes:
    import av

    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width = clip.shape[1], clip.shape[2]
        stream.pix_fmt = pixel_format
        stream.thread_count = 1
        # Macroblock-tree rate control reads memory it never wrote on frames this small: bytes differed from run to run.
        stream.options = {
            "crf": str(crf),
            "preset": "veryfast",
            "threads": "1",
            "x264-params": "mbtree=0",
        }
        for frame in clip:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return memory.getvalue()
