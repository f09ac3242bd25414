"""A strip of frames of each cluster, for the page. Owns how they are chosen; only public shards are looked at."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from kinoswarm_model.data.shards import read_shard
from kinoswarm_network.durable import write_atomic
from kinoswarm_protocol.charter import Charter
from kinoswarm_protocol.errors import KinoswarmError
from kinoswarm_protocol.ids import BlobId

_FRAMES = 4
_SIZE = 128
_log = structlog.get_logger("frames")


def write_frames(charter: Charter, folder: Path, path_of: Callable[[BlobId], Path | None]) -> None:
    """One PNG per cluster, `<cluster>.png`; done once. Clips that are no pixels have no frames to show."""
    if charter.model.clip.codec != "pixel":
        return
    folder.mkdir(parents=True, exist_ok=True)
    for index, cluster in enumerate(charter.clusters):
        target = folder / f"{index}.png"
        source = path_of(cluster.shards[0].blob) if cluster.shards else None
        if target.exists() or source is None:
            continue
        try:
            write_atomic(target, _png(read_shard(source).clips), mode=0o644)
        except KinoswarmError as error:
            _log.warning("no frames", cluster=index, why=str(error))


def _png(clips: NDArray[np.uint8]) -> bytes:
    """Middle frames of evenly chosen clips (N, C, T, H, W), side by side."""
    from PIL import Image

    chosen = np.linspace(0, len(clips) - 1, num=min(_FRAMES, len(clips)), dtype=int)
    strip = Image.new("RGB", (_SIZE * len(chosen), _SIZE))
    for place, index in enumerate(chosen):
        frame = np.asarray(clips[index][:, clips.shape[2] // 2]).transpose(1, 2, 0)
        image = Image.fromarray(np.ascontiguousarray(frame)).resize(
            (_SIZE, _SIZE), Image.Resampling.NEAREST
        )
        strip.paste(image, (place * _SIZE, 0))
    buffer = BytesIO()
    strip.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
