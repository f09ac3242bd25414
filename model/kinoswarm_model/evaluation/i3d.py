"""The published FVD: Fréchet distance on I3D's 400 features. Owns running a TorchScript file that a local user names.

This is one of two files where code may come with weights: TorchScript runs what is in it, so it is loaded only from a
path given on this machine's command line, after `--i3d-runs-code`. The file is `i3d_torchscript.pt` of the StyleGAN-V
authors (CVPR 2022), which papers since then report FVD with. Shapes: N clips, T frames, H height, W width.
"""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kinoswarm_model.evaluation.frechet import frechet_distance
from kinoswarm_protocol.errors import LocalError

FEATURES = 400
LEAST_FRAMES = 10
"""I3D halves time four times over; shorter clips leave it nothing to see."""
_SIDE = 224
_BATCH = 4


@dataclass(frozen=True)
class I3D:
    """A loaded network."""

    network: Any

    @classmethod
    def load(cls, path: Path) -> "I3D":
        """Runs the code in `path`. Raises LocalError when it is no TorchScript file."""
        try:
            with warnings.catch_warnings():
                # torch asks for torch.export, but the published network exists as TorchScript only.
                warnings.simplefilter("ignore", DeprecationWarning)
                network = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError, ValueError) as error:
            said = (str(error).splitlines() or [""])[0][:200]
            raise LocalError(f"{path} is no TorchScript file ({said})") from error
        return cls(network.eval())

    @torch.inference_mode()
    def features(self, clips_NTHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(N, 400). Raises LocalError when the file is not the published I3D."""
        found = []
        for start in range(0, len(clips_NTHWC), _BATCH):
            batch = torch.from_numpy(clips_NTHWC[start : start + _BATCH])
            try:
                features = self.network(
                    _prepared(batch), rescale=False, resize=False, return_features=True
                )
            except (RuntimeError, TypeError) as error:
                raise LocalError(
                    "the TorchScript file does not take I3D's arguments; get i3d_torchscript.pt"
                ) from error
            if tuple(features.shape) != (len(batch), FEATURES):
                raise LocalError(
                    f"the TorchScript file gives {tuple(features.shape)}, not {FEATURES} features a clip"
                )
            found.append(features.double())
        return np.asarray(torch.cat(found).numpy())

    def fvd(self, made_NTHWC: NDArray[np.uint8], real_NTHWC: NDArray[np.uint8]) -> float:
        """The distance as published: no PCA, no extrapolation, so it falls with the number of clips."""
        return frechet_distance(self.features(made_NTHWC), self.features(real_NTHWC))


def _prepared(clips_NTHWC: torch.Tensor) -> torch.Tensor:
    """(N, 3, T, 224, 224) from -1 to 1: the shorter side is scaled to 224, then the middle is cut out."""
    count, frames, height, width, _ = clips_NTHWC.shape
    x_MCHW = clips_NTHWC.flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    scale = _SIDE / min(height, width)
    size = (max(_SIDE, math.ceil(height * scale)), max(_SIDE, math.ceil(width * scale)))
    x_MCHW = torch.nn.functional.interpolate(x_MCHW, size, mode="bilinear", align_corners=False)
    top, left = (size[0] - _SIDE) // 2, (size[1] - _SIDE) // 2
    x_MCHW = x_MCHW[:, :, top : top + _SIDE, left : left + _SIDE].contiguous()
    return x_MCHW.view(count, frames, 3, _SIDE, _SIDE).transpose(1, 2)
