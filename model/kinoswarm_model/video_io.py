"""Clips to and from video files. Owns encoding and decoding through PyAV; equal frames give equal bytes."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Clip = NDArray[np.uint8]
"""(T, H, W, 3) RGB."""


def write_mp4(path: Path, clip: Clip, fps: int, *, scale: int = 1, crf: int = 10) -> None:
    """Write an H.264 mp4 atomically. `scale` repeats pixels so that small clips can be watched.

    One thread and no timestamps of the day: the same frames give the same bytes.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        # Full chroma keeps small training clips exact; enlarged ones use what every browser plays.
        pixel_format = "yuv444p" if scale == 1 else "yuv420p"
        _encode(temporary, _enlarged(clip, scale), fps, crf, pixel_format)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _enlarged(clip: Clip, scale: int) -> Clip:
    """Pixels repeated `scale` times, edges padded to even sizes, which H.264 needs."""
    clip = clip.repeat(scale, axis=1).repeat(scale, axis=2)
    odd_rows, odd_columns = clip.shape[1] % 2, clip.shape[2] % 2
    if odd_rows or odd_columns:
        clip = np.pad(clip, ((0, 0), (0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
    return clip


def _encode(path: Path, clip: Clip, fps: int, crf: int, pixel_format: str) -> None:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width = clip.shape[1], clip.shape[2]
        stream.pix_fmt = pixel_format
        stream.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        for frame in clip:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
