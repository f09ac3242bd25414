"""FLOPs of training steps at their real batch size, counted by torch on the meta device. Owns the budget's arithmetic.

Forward and backward are counted together; nothing is assumed to cost three forward passes.
"""

from dataclasses import dataclass
from functools import lru_cache

import msgspec
import torch
from torch.utils.flop_counter import FlopCounterMode

from kinoswarm_model.experts import meta_expert
from kinoswarm_model.router import meta_router
from kinoswarm_protocol.specs import ModelSpec


def expert_step_flops(model: ModelSpec, batch_size: int) -> float:
    """One optimizer step of one expert, or of the monolith, on `batch_size` clips."""
    return _counted(_Hashed(model), None, batch_size)


def router_step_flops(model: ModelSpec, num_clusters: int, batch_size: int) -> float:
    """One optimizer step of the router."""
    return _counted(_Hashed(model), num_clusters, batch_size)


@dataclass(frozen=True)
class _Hashed:
    """A model whose hash is that of its content: it holds lists."""

    model: ModelSpec

    def __hash__(self) -> int:
        return hash(msgspec.json.encode(self.model))


@lru_cache(maxsize=64)
def _counted(hashed: _Hashed, num_clusters: int | None, batch_size: int) -> float:
    model = hashed.model
    clip, text = model.clip, model.text
    with torch.device("meta"):
        x_t = torch.empty(batch_size, clip.channels, clip.frames, clip.height, clip.width)
        t, pooled = torch.empty(batch_size), torch.empty(batch_size, text.dim)
        tokens = torch.empty(batch_size, text.max_tokens, text.dim)
        mask = torch.empty(batch_size, text.max_tokens, dtype=torch.bool)
    with FlopCounterMode(display=False) as counter:
        if num_clusters is None:
            out = meta_expert(model)(x_t, t, tokens, mask)
        else:
            out = meta_router(model, num_clusters)(x_t, t, pooled)
        out.sum().backward()
    return float(counter.get_total_flops())
