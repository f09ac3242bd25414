"""From prompts and seeds to pixels with a routed model. Owns batching and the share per expert.

Shapes: N clips, B clips of a batch, C channels, T frames, H height, W width, K clusters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinoswarm_model.data import text as data_text
from kinoswarm_model.sampler import RoutedModel, SampleSettings, TextBatch, sample

OnSteps = Callable[[int, int], None]
"""(denoising steps done, denoising steps in all), counted over all batches."""


@dataclass(frozen=True)
class SampledClips:
    clips: NDArray[np.uint8]
    """(N, T, H, W, 3)"""
    share_by_expert: list[float]
    """How often each expert had the largest weight, over all clips and steps; sums to 1."""


def sample_clips(
    routed: RoutedModel,
    text: TextBatch,
    seeds: Sequence[int],
    settings: SampleSettings,
    batch_size: int,
    on_steps: OnSteps | None = None,
) -> SampledClips:
    """Sample N clips, `batch_size` at a time. With batches of one, a clip's bytes depend on its seed and text only."""
    counts_K = np.zeros(len(routed.available_K), dtype=np.int64)
    batches = [range(i, min(i + batch_size, len(seeds))) for i in range(0, len(seeds), batch_size)]
    done = 0

    def count(step: int, _steps: int, expert_B: Tensor) -> None:
        nonlocal done
        done += 1
        np.add.at(counts_K, expert_B.cpu().numpy(), 1)
        if on_steps is not None:
            on_steps(done, len(batches) * settings.steps)

    clips = [
        routed.decode(
            sample(routed, rows_of(text, rows), [seeds[i] for i in rows], settings, count)
        )
        for rows in batches
    ]
    made = np.concatenate(clips) if clips else np.zeros((0, 0, 0, 0, 3), np.uint8)
    return SampledClips(made, (counts_K / max(1, counts_K.sum())).tolist())


def rows_of(text: TextBatch, rows: Sequence[int]) -> TextBatch:
    """The texts of these rows; a row may be named more than once."""
    index = torch.tensor(list(rows), dtype=torch.int64, device=text.tokens_BLD.device)
    return TextBatch(
        tokens_BLD=text.tokens_BLD[index],
        mask_BL=text.mask_BL[index],
        pooled_BD=text.pooled_BD[index],
    )


def text_on(encoded: data_text.TextBatch, device: torch.device) -> TextBatch:
    """Cached or fresh embeddings as the sampler takes them."""
    return TextBatch(
        tokens_BLD=torch.from_numpy(encoded.tokens).to(device, torch.float32),
        mask_BL=torch.from_numpy(encoded.mask).to(device) > 0,
        pooled_BD=torch.from_numpy(encoded.pooled).to(device, torch.float32),
    )
