"""How much memory training takes, by mode. Owns the formula; free of torch, so that founders and the CLI may ask.

Counts tensors: weights, gradients, moments and what one clip's forward pass keeps for the backward pass. A driver's own
context (0.3 to 1 GB) comes on top. The activations' figures were fitted to what autograd saved, to within 2% for
sixty networks of 64 to 768 wide and 32 to 1,024 patches; a test holds the formula to that.
Letters: N patches, M width, F feed-forward width, L text tokens.
"""

import math
from dataclasses import dataclass
from typing import Literal

from kinoswarm_protocol.specs import ModelSpec, ModeSpec

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """Bytes that one forward pass keeps, by what they grow with."""

    block_NM: float
    block_NF: float
    block_LM: float
    block_MM: float
    """Weights that a block joins or casts: once, not per clip."""
    block_MF: float
    ends_NM: float
    ends_LM: float
    ends_MM: float
    """Cast weights again."""
    inputs: float
    """For each number that goes into the patch embedding."""


_SAVED: dict[Precision, _Saved] = {
    "float32": _Saved(
        block_NM=88.0,
        block_NF=8.0,
        block_LM=20.0,
        block_MM=12.0,
        block_MF=0.0,
        ends_NM=11.0,
        ends_LM=19.0,
        ends_MM=0.0,
        inputs=4.1,
    ),
    "bfloat16": _Saved(
        block_NM=70.0,
        block_NF=4.0,
        block_LM=14.0,
        block_MM=16.0,
        block_MF=4.0,
        ends_NM=8.0,
        ends_LM=59.0,
        ends_MM=16.0,
        inputs=2.1,
    ),
}


@dataclass(frozen=True)
class Sizes:
    """The numbers of a Wan transformer that memory depends on."""

    patches: int
    patch_values: int
    """Numbers that a patch is embedded from."""
    width: int
    ffn: int
    layers: int
    text_tokens: int

    @classmethod
    def of(cls, model: ModelSpec) -> "Sizes":
        config, clip = model.expert.config, model.clip
        patch = config["patch_size"]
        assert isinstance(patch, list)
        return cls(
            patches=clip.frames * clip.height * clip.width // math.prod(patch),
            patch_values=_whole(model, "in_channels") * math.prod(patch),
            width=_whole(model, "num_attention_heads") * _whole(model, "attention_head_dim"),
            ffn=_whole(model, "ffn_dim"),
            layers=_whole(model, "num_layers"),
            text_tokens=model.text.max_tokens,
        )


def parameters(model: ModelSpec) -> int:
    """Weights of a Wan transformer, counted by its layers."""
    sizes, config = Sizes.of(model), model.expert.config
    M, F = sizes.width, sizes.ffn
    attention = 4 * (M * M + M) + 2 * M
    cross_norm = 2 * M if config.get("cross_attn_norm") else 0
    block = 2 * attention + cross_norm + (2 * M * F + F + M) + 6 * M
    patch = config["patch_size"]
    assert isinstance(patch, list)
    volume = math.prod(patch)
    embedding = M * _whole(model, "in_channels") * volume + M
    time = _whole(model, "freq_dim") * M + M + (M * M + M) + (6 * M * M + 6 * M)
    text = model.text.dim * M + M + M * M + M
    output = (M + 1) * _whole(model, "out_channels") * volume + 2 * M
    return sizes.layers * block + embedding + time + text + output


def adapter_parameters(model: ModelSpec, rank: int) -> int:
    """Weights of LoRA's adapters: eight square layers and two of the feed-forward part in each block."""
    sizes = Sizes.of(model)
    return sizes.layers * rank * (8 * 2 * sizes.width + 2 * (sizes.width + sizes.ffn))


def activation_bytes(
    model: ModelSpec, precision: Precision, *, micro_batch: int = 1, checkpointing: bool = False
) -> float:
    """What one forward pass of `micro_batch` clips keeps for the backward pass."""
    sizes, saved = Sizes.of(model), _SAVED[precision]
    N, M, F, L = sizes.patches, sizes.width, sizes.ffn, sizes.text_tokens
    block = saved.block_NM * N * M + saved.block_NF * N * F + saved.block_LM * L * M
    block_weights = saved.block_MM * M * M + saved.block_MF * M * F
    ends = saved.ends_NM * N * M + saved.ends_LM * L * M + saved.inputs * N * sizes.patch_values
    # With checkpointing only the blocks' inputs are kept, and one block at a time is computed again.
    whole, inputs = (1, 4.0 * sizes.layers * N * M) if checkpointing else (sizes.layers, 0.0)
    weights = whole * block_weights + saved.ends_MM * M * M
    return micro_batch * (whole * block + inputs + ends) + weights


def training_bytes(
    model: ModelSpec,
    mode: ModeSpec,
    precision: Precision,
    *,
    micro_batch: int = 1,
    checkpointing: bool = False,
) -> float:
    """Memory of training in this mode: the least is one clip at a time with activation checkpointing."""
    fixed = parameters(model)
    trained = fixed
    weights = 4.0 * fixed
    if mode.name == "lora":
        trained = adapter_parameters(model, mode.rank)
        weights = _frozen_bytes(model, precision) + 4.0 * trained
    moments = trained * (_EIGHT_BIT_MOMENTS if mode.name == "adam8bit" else 8.0)
    activations = activation_bytes(
        model, precision, micro_batch=micro_batch, checkpointing=checkpointing
    )
    return weights + 4.0 * trained + moments + activations


_EIGHT_BIT_MOMENTS = 2.0 + 2.0 * 4.0 / 256.0
"""Two codes of a byte, and a float32 scale for each block of 256."""


def _frozen_bytes(model: ModelSpec, precision: Precision) -> float:
    """Adapted layers' frozen weights are held in the type that is computed in; the rest stays float32."""
    sizes = Sizes.of(model)
    large = sizes.layers * (8 * sizes.width**2 + 2 * sizes.width * sizes.ffn)
    small = parameters(model) - large
    return large * (2.0 if precision == "bfloat16" else 4.0) + 4.0 * small


def _whole(model: ModelSpec, key: str) -> int:
    value = model.expert.config[key]
    assert isinstance(value, int)
    return value
