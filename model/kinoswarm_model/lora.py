"""Low-rank training of an expert with peft (arXiv 2106.09685). Owns which layers adapt, how they start and are merged.

What leaves a segment is the whole weight W + (alpha / r) B A of every adapted layer, so that merging, checking and
releasing know nothing of LoRA.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kinoswarm_model.left_out import bring_back
from kinoswarm_protocol.errors import LocalError

ALPHA = 32
"""With updates scaled by alpha / r the best learning rate hardly depends on r, and is about ten times that of full
training ("LoRA Without Regret", Schulman et al. 2025)."""

RATE_FACTOR = 10.0
_ADAPTER = "default"
_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
"""Attention and feed-forward layers: nearly all weights of a Wan transformer."""


def add_adapters(network: nn.Module, rank: int, seed: int) -> None:
    """Freeze the network and put an adapter of this rank beside each large layer; B starts at zero.

    The same seed gives the same A. Raises LocalError when peft is not installed.
    """
    bring_back("peft")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise LocalError("mode lora needs peft: pip install 'kinoswarm[modes]'") from error
    config = LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=list(_LAYERS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, network, adapter_name=_ADAPTER)


def keep_frozen_in(network: nn.Module, dtype: torch.dtype) -> None:
    """Hold the frozen weights of adapted layers in this type: autocast computes with it anyway."""
    for layer in _adapted(network).values():
        layer.base_layer.to(dtype)


@torch.no_grad()
def merged_weights(network: nn.Module, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under their own names, float32 on the CPU: `base` with every adapter's product added."""
    weights = dict(base)
    for name, layer in _adapted(network).items():
        key = f"{name}.weight"
        weights[key] = base[key] + layer.get_delta_weight(_ADAPTER).float().cpu()
    return weights


def _adapted(network: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: part for name, part in network.named_modules() if isinstance(part, LoraLayer)}
