"""Merging contributions into a version: the outer optimizer on deltas. Owns the arithmetic; pure, independent of order.

DiLoCo (arXiv 2311.08105): the weighted mean of deltas is a gradient for SGD with Nesterov momentum. Before that, norms
are clipped to a multiple of their median, and from five contributors up the extremes of every coordinate are trimmed.
Sums run over contributions sorted by key, in float64, one tensor at a time. Shapes: M contributions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from kinoswarm_model.delta import Delta
from kinoswarm_protocol.errors import LocalError

TRIM_FROM = 5
"""With fewer contributors there is nothing to trim without losing a third of the work."""


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """One accepted delta with its weight (samples times staleness decay) and sort key."""

    key: str
    weight: float
    delta: Delta


@dataclass(frozen=True, kw_only=True)
class OuterSettings:
    """Outer step size and momentum; `norm_clip` in medians, 0 is off; `freshness` scales the mean."""

    rate: float
    momentum: float
    norm_clip: float
    freshness: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The new version's weights; momentum to keep for the next merge, None with a single contributor."""

    weights: dict[str, Tensor]
    momentum: dict[str, Tensor] | None


def merge(
    base: Mapping[str, Tensor],
    contributions: Sequence[Contribution],
    settings: OuterSettings,
    momentum: Mapping[str, Tensor] | None,
) -> Merged:
    """base plus the outer step. With one contributor: rate 1, no momentum. Raises LocalError without contributions."""
    entries = sorted(contributions, key=lambda entry: entry.key)
    if not entries:
        raise LocalError("nothing to merge: a version needs at least one accepted contribution")
    single = len(entries) == 1
    limit = 0.0 if single else settings.norm_clip
    scales = clip_scales([entry.delta.norm() for entry in entries], limit)
    weights_M = normalised([entry.weight for entry in entries])
    new: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    for name in sorted(base):
        stacked = torch.stack(
            [e.delta.tensor(name).double() * s for e, s in zip(entries, scales, strict=True)]
        )
        step = settings.freshness * weighted_mean(stacked, weights_M)
        if not single:
            before = None if momentum is None else momentum[name].double()
            step, kept[name] = outer_step(step, before, settings)
        new[name] = (base[name].double() + step).float()
    return Merged(weights=new, momentum=None if single else kept)


def clip_scales(norms: Sequence[float], norm_clip: float) -> list[float]:
    """Factor for every delta so that no norm exceeds `norm_clip` medians."""
    limit = norm_clip * median(norms)
    if limit <= 0:
        return [1.0] * len(norms)
    return [min(1.0, limit / norm) if norm > 0 else 1.0 for norm in norms]


def normalised(weights: Sequence[float]) -> Tensor:
    """Weights that sum to 1, float64; equal ones when all are zero."""
    weights_M = torch.tensor(weights, dtype=torch.float64)
    total = float(weights_M.sum())
    return weights_M / total if total > 0 else torch.full_like(weights_M, 1.0 / len(weights))


def weighted_mean(stacked: Tensor, weights_M: Tensor) -> Tensor:
    """Weighted mean over the first axis; from TRIM_FROM entries up without each coordinate's lowest and highest."""
    count = stacked.shape[0]
    weights = weights_M.view(-1, *[1] * (stacked.dim() - 1)).expand_as(stacked)
    if count < TRIM_FROM:
        return (stacked * weights).sum(0)
    order = stacked.argsort(dim=0, stable=True)
    inner = order[1:-1]
    kept_weights = weights.gather(0, inner)
    return (stacked.gather(0, inner) * kept_weights).sum(0) / kept_weights.sum(0)


def outer_step(
    mean: Tensor, momentum: Tensor | None, settings: OuterSettings
) -> tuple[Tensor, Tensor]:
    """SGD-Nesterov: m' = mu m + d, step = rate (d + mu m'). Returns the step and m' (float32)."""
    moved = mean if momentum is None else settings.momentum * momentum + mean
    return settings.rate * (mean + settings.momentum * moved), moved.float()
