"""Small videos for tests: plain colours with a moving stripe, in any container that PyAV writes."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

CODEC_BY_SUFFIX = {
    ".mp4": ("libx264", "yuv444p"),
    ".mov": ("libx264", "yuv444p"),
    ".mkv": ("libx264", "yuv444p"),
    ".webm": ("libvpx-vp9", "yuv444p"),
    ".gif": ("gif", "rgb8"),
}


def striped(
    colour: tuple[int, int, int], frames: int = 8, height: int = 32, width: int = 32, start: int = 0
) -> NDArray[np.uint8]:
    """(T, H, W, 3): a plain colour with a white stripe that moves right."""
    clip = np.full((frames, height, width, 3), colour, dtype=np.uint8)
    for t in range(frames):
        left = (start + 2 * t) % (width - 4)
        clip[t, :, left : left + 4] = 255
    return clip


def counting(frames: int, height: int = 32, width: int = 32) -> NDArray[np.uint8]:
    """(T, H, W, 3): frame t is grey of value 2 t + 20."""
    values = (2 * np.arange(frames) + 20).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (frames, height, width, 3)).copy()


def write_video(path: Path, clip: NDArray[np.uint8], fps: int) -> Path:
    """Near lossless where the codec can."""
    codec, pixel_format = CODEC_BY_SUFFIX[path.suffix]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width = clip.shape[1], clip.shape[2]
        stream.pix_fmt = pixel_format
        if codec == "libx264":
            stream.options = {"crf": "1", "preset": "ultrafast"}
        for frame in clip:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
