"""One video denoiser with one way to call it, whatever diffusers class is inside. Owns building and counting.

A config is foreign: it is checked against the class, and its parameters are counted on the meta device, before memory
is taken. Shapes: B batch, C channels, T frames, H height, W width, L text tokens, D text width.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kinoswarm_model.expert_classes import checked_config, class_of, forward_of
from kinoswarm_model.once_per_model import once_per_model
from kinoswarm_model.seed_weights import start_as_linear_codec
from kinoswarm_model.wan_forward import restore_buffers
from kinoswarm_protocol.errors import LimitExceeded, MalformedBytes
from kinoswarm_protocol.limits import MAX_EXPERT_PARAMETERS
from kinoswarm_protocol.specs import ModelSpec

Denoiser = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x_t_BCTHW, t_B, text_tokens_BLD, text_mask_BL) -> prediction_BCTHW; an Expert is one."""


class Expert(nn.Module):
    """A denoiser. `network` is the diffusers model whose state dict is what checkpoints hold."""

    def __init__(self, network: nn.Module, class_name: str) -> None:
        super().__init__()
        self.network = network
        self._forward = forward_of(class_name)

    def forward(
        self, x_t_BCTHW: Tensor, t_B: Tensor, text_tokens_BLD: Tensor, text_mask_BL: Tensor
    ) -> Tensor:
        """Prediction for noisy clips at times t in 0..1, float32. Masked text tokens count as the null token (zeros).

        Weights may be of a smaller type; clips and times come in float32.
        """
        text_BLD = text_tokens_BLD * text_mask_BL.to(text_tokens_BLD.dtype).unsqueeze(-1)
        dtype = next(self.network.parameters()).dtype
        return self._forward(self.network, x_t_BCTHW.to(dtype), t_B, text_BLD.to(dtype)).float()


def count_parameters(model: ModelSpec) -> int:
    """Parameters of this expert, counted without allocating them.

    Raises MalformedBytes when the class can't be built so, LimitExceeded when it is larger than the protocol allows.
    """
    return sum(parameter.numel() for parameter in _blueprint(model).parameters())


@once_per_model
def tensor_shapes(model: ModelSpec) -> Mapping[str, tuple[int, ...]]:
    """Name and shape of every tensor of this expert's checkpoint, without allocating it."""
    state = _blueprint(model).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def meta_expert(model: ModelSpec) -> Expert:
    """The expert without memory, on the meta device: for shapes and FLOP counts."""
    return Expert(_blueprint(model), model.expert.class_name)


def build_expert(model: ModelSpec, *, seed: int) -> Expert:
    """A freshly initialised expert; the same seed gives the same weights. The global random state is left alone."""
    count_parameters(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = class_of(model.expert.class_name)(**checked_config(model))
        if model.recipe.prediction == "clean":
            generator = torch.Generator().manual_seed(seed)
            start_as_linear_codec(network, model.clip.channels, generator)
    return Expert(network, model.expert.class_name)


def expert_holding(weights: Mapping[str, Tensor], model: ModelSpec) -> Expert:
    """An expert whose parameters are these very tensors, without a copy; names and shapes must have been checked."""
    network = _blueprint(model)
    restore_buffers(network)
    network.load_state_dict(dict(weights), assign=True)
    return Expert(network, model.expert.class_name)


def null_text(batch: int, model: ModelSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens and mask that stand for "no text" in guidance and dropout: all zeros."""
    tokens_BLD = torch.zeros(batch, model.text.max_tokens, model.text.dim, device=device)
    return tokens_BLD, torch.zeros(batch, model.text.max_tokens, dtype=torch.bool, device=device)


def _blueprint(model: ModelSpec) -> nn.Module:
    config = checked_config(model)
    _bound(model, config)
    try:
        with torch.device("meta"):
            network = class_of(model.expert.class_name)(**config)
    except (TypeError, ValueError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise MalformedBytes(f"{model.expert.class_name} can't be built: {error}") from error
    _within_limit(sum(parameter.numel() for parameter in network.parameters()))
    return network


def _bound(model: ModelSpec, config: dict[str, Any]) -> None:
    """A coarse sum first: even the meta device takes time and memory per layer."""
    width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    per_layer = 8 * width * width + 2 * width * int(config["ffn_dim"])
    _within_limit(int(config["num_layers"]) * per_layer)


def _within_limit(parameters: int) -> None:
    if parameters > MAX_EXPERT_PARAMETERS:
        raise LimitExceeded(
            f"an expert of {parameters} parameters; at most {MAX_EXPERT_PARAMETERS}"
        )
