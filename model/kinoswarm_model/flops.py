"""FLOPs of a model, counted on the meta device. Owns the sums behind every figure of computing work that we report."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kinoswarm_model.experts import meta_expert
from kinoswarm_model.once_per_model import once_per_model
from kinoswarm_model.router import meta_router
from kinoswarm_protocol.specs import ModelSpec

TRAIN_FACTOR = 3.0
"""Backward costs twice forward: gradients of inputs and of weights."""


@once_per_model
def expert_flops(model: ModelSpec) -> float:
    """FLOPs of one forward pass of the expert for one clip."""
    clip, text = model.clip, model.text
    with torch.device("meta"):
        x_t = torch.empty(1, clip.channels, clip.frames, clip.height, clip.width)
        tokens = torch.empty(1, text.max_tokens, text.dim)
        mask = torch.empty(1, text.max_tokens, dtype=torch.bool)
        t = torch.empty(1)
    return _count(meta_expert(model), x_t, t, tokens, mask)


def router_flops(model: ModelSpec, num_clusters: int) -> float:
    """FLOPs of one forward pass of the router for one clip."""
    clip = model.clip
    with torch.device("meta"):
        x_t = torch.empty(1, clip.channels, clip.frames, clip.height, clip.width)
        t, pooled = torch.empty(1), torch.empty(1, model.text.dim)
    return _count(meta_router(model, num_clusters), x_t, t, pooled)


def sampling_flops(
    model: ModelSpec, num_experts: int, *, steps: int, guidance: float, top_k: int
) -> float:
    """FLOPs of generating one clip: guidance doubles the experts' passes, the router is asked once a step.

    A single expert needs none.
    """
    passes = (1 if guidance == 1.0 else 2) * min(top_k, num_experts)
    router = router_flops(model, num_experts) if num_experts > 1 else 0.0
    return steps * (passes * expert_flops(model) + router)


def _count(module: nn.Module, *arguments: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*arguments)
    return float(counter.get_total_flops())
