"""A linear video codec: patches of pixels to a few channels and back, fitted by PCA. Owns its fit; nothing is learnt.

The papers train on cached latents of a video VAE; no VAE's weights are at hand for clips this small, and the best
linear one is a PCA of patches. Why latents at all: a patch of 96 pixels' noise does not fit through a network 24 wide,
so pixel models of that width lose detail already from a third of the noise on, whatever they know of the scene.
Shapes: N clips, C colours, K latent channels, T H W of pixels, D numbers of a patch.
"""

from dataclasses import dataclass, replace

import numpy as np
from benchmarks.quality.clips import Clips, QualityData
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8]
Latents = NDArray[np.float32]
_FIT_EVERY = 3
"""Of the fit clips' patches, every so many is enough."""


class LatentPlan(Struct, frozen=True, kw_only=True):
    """Which patches become how many channels."""

    patch: tuple[int, int, int] = (2, 4, 4)
    channels: int = 16
    flattening: float = 1.0
    """1 gives every channel a variance of one, as cached VAE latents have; 0 keeps the PCA's own proportions."""


@dataclass(frozen=True)
class LatentCodec:
    """Encodes and decodes. Latents have a mean variance of one."""

    plan: LatentPlan
    mean_D: NDArray[np.float32]
    basis_DK: NDArray[np.float32]
    scale_K: NDArray[np.float32]

    def encode(self, pixels_NCTHW: Pixels) -> Latents:
        """(N, K, T', H', W')"""
        patches = _patches(pixels_NCTHW, self.plan.patch)
        found = (patches - self.mean_D) @ self.basis_DK / self.scale_K
        return np.ascontiguousarray(found.transpose(0, 4, 1, 2, 3))

    def decode(self, latents_NKTHW: Tensor) -> Pixels:
        """(N, T, H, W, C)"""
        patches = (latents_NKTHW.numpy().transpose(0, 2, 3, 4, 1) * self.scale_K) @ self.basis_DK.T
        return _pixels(patches + self.mean_D, self.plan.patch)


def fit_codec(pixels_NCTHW: Pixels, plan: LatentPlan) -> LatentCodec:
    """The leading principal directions of patches."""
    patches_MD = _patches(pixels_NCTHW, plan.patch)
    patches_MD = patches_MD.reshape(-1, patches_MD.shape[-1])[::_FIT_EVERY]
    mean_D = patches_MD.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov((patches_MD - mean_D).T))
    leading = variances[::-1][: plan.channels]
    scale = leading ** (plan.flattening / 2)
    scale *= np.sqrt((leading / scale**2).mean())
    basis = np.ascontiguousarray(directions[:, ::-1][:, : plan.channels])
    return LatentCodec(plan, mean_D, basis.astype(np.float32), scale.astype(np.float32))


def with_latents(data: QualityData, codec: LatentCodec) -> QualityData:
    """The same clips; training and held-out ones with their latents."""

    def encoded(clips: Clips) -> Clips:
        return replace(clips, latents=codec.encode(clips.pixels))

    return replace(
        data,
        training=encoded(data.training),
        heldout=encoded(data.heldout),
        decode=codec.decode,
    )


def _patches(pixels_NCTHW: Pixels, patch: tuple[int, int, int]) -> NDArray[np.float32]:
    """(N, T', H', W', D)"""
    n, c, t, h, w = pixels_NCTHW.shape
    a, b, d = patch
    split = pixels_NCTHW.reshape(n, c, t // a, a, h // b, b, w // d, d)
    ordered = split.transpose(0, 2, 4, 6, 1, 3, 5, 7).reshape(n, t // a, h // b, w // d, -1)
    return ordered.astype(np.float32) / 127.5 - 1.0


def _pixels(patches: NDArray[np.float32], patch: tuple[int, int, int]) -> Pixels:
    n, t, h, w, _ = patches.shape
    a, b, d = patch
    split = patches.reshape(n, t, h, w, -1, a, b, d).transpose(0, 1, 5, 2, 6, 3, 7, 4)
    whole = split.reshape(n, t * a, h * b, w * d, -1)
    return ((whole + 1.0) * 127.5).round().clip(0, 255).astype(np.uint8)
