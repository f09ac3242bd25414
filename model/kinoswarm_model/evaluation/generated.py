"""The generated side of an evaluation: a clip for every held-out caption. Owns seeds, batches and shares by cluster.

The release and the seed version go through here with the same captions and seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kinoswarm_model.checkpoints import read_checkpoint
from kinoswarm_model.clip_sampling import rows_of, sample_clips, text_on
from kinoswarm_model.evaluation.real_clips import RealClips
from kinoswarm_model.experts import build_expert, tensor_shapes
from kinoswarm_model.sampler import RoutedModel, SampleSettings
from kinoswarm_protocol.specs import ModelSpec

OnClips = Callable[[int, int], None]
"""(clips done, clips in all)."""

_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class GenerationPlan:
    """What is generated and how."""

    captions: RealClips
    settings: SampleSettings
    seed: int
    """Clip i has seed + i."""
    device: torch.device


@dataclass(frozen=True)
class Generated:
    """Clips in the order of the captions."""

    pixels: NDArray[np.uint8]
    """(N, T, H, W, C)"""
    share_by_cluster: list[list[float]]
    """Row k: how often each expert was picked for captions of cluster k; zeros where there are none."""

    def share_by_expert(self, clusters: list[int]) -> list[float]:
        """The same over all captions."""
        weight_by_cluster = np.bincount(clusters, minlength=len(self.share_by_cluster))
        shares = weight_by_cluster @ np.array(self.share_by_cluster) / len(clusters)
        return [float(share) for share in shares]


def generate_for(
    routed: RoutedModel, plan: GenerationPlan, num_clusters: int, on_clips: OnClips
) -> Generated:
    """A clip for every caption, cluster by cluster, so that shares are known for each."""
    text = text_on(plan.captions.text, plan.device)
    pixels = np.empty_like(plan.captions.pixels)
    shares = [[0.0] * len(routed.available_K) for _ in range(num_clusters)]
    done = 0
    for k in range(num_clusters):
        rows = [i for i, cluster in enumerate(plan.captions.clusters) if cluster == k]
        if rows:
            seeds = [plan.seed + i for i in rows]
            count = _counted(on_clips, done, len(rows), len(plan.captions))
            sampled = sample_clips(routed, rows_of(text, rows), seeds, plan.settings, _BATCH, count)
            pixels[rows], shares[k] = sampled.clips, sampled.share_by_expert
            done += len(rows)
    return Generated(pixels, shares)


def seed_version(model: ModelSpec, checkpoint: Path, device: torch.device) -> RoutedModel:
    """One expert for everything: version 0. Raises what reading a checkpoint raises."""
    expert = build_expert(model, seed=0)
    expert.network.load_state_dict(read_checkpoint(checkpoint, tensor_shapes(model)))
    expert.eval().requires_grad_(False).to(device)
    return RoutedModel(model=model, expert=lambda _: expert, available_K=[True], router=None)


def _counted(on_clips: OnClips, before: int, clips: int, total: int) -> OnClips:
    """Denoising steps of one cluster as a number of clips."""
    return lambda step, steps: on_clips(before + clips * step // steps, total)
