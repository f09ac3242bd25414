"""How WanTransformer3DModel is called, and a leaner forward pass over its own modules. Owns both.

Wan takes timesteps in 0..1000 and no text mask. At the sizes that home machines train, a third of the stock forward
pass is casts, rotary embeddings by strided writes and separate small multiplications; this one fuses those and
computes the same function (a test compares the two). Weights and modules stay diffusers' own.

Position channels: when a network has more input channels than a clip, the rest are filled with fixed cosines of the
position along frames, rows and columns. Wan's rotary embedding is relative; a small network on a small clip can't
tell the sky's rows from the floor's without them.
Shapes: B batch, C channels, T frames, H height, W width, L text tokens, D text width, N patches, M model width,
A heads, E head width.
"""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

WAN_TIMESTEPS = 1000.0


def wan_forward(network: Any, x_t_BCTHW: Tensor, t_B: Tensor, text_BLD: Tensor) -> Tensor:
    """Prediction of shape (B, C, T, H, W) at times t in 0..1."""
    time_BM, modulation_B6M, text_BLM, _ = network.condition_embedder(
        t_B * WAN_TIMESTEPS, text_BLD, None
    )
    modulation_B6M = modulation_B6M.unflatten(1, (6, -1))
    rope_NE2 = _rope(network, x_t_BCTHW)
    h_BNM = _embedded(network, x_t_BCTHW)
    for block in network.blocks:
        run = getattr(block, _COMPILED, _block)
        arguments = (block, h_BNM, text_BLM, modulation_B6M, rope_NE2)
        if network.gradient_checkpointing and torch.is_grad_enabled():
            h_BNM = checkpoint(run, *arguments, use_reentrant=False)
        else:
            h_BNM = run(*arguments)
    shift, scale = (network.scale_shift_table + time_BM.unsqueeze(1)).chunk(2, dim=1)
    h_BNM = _modulated(network.norm_out, h_BNM, shift, scale)
    return _unpatched(network, network.proj_out(h_BNM), x_t_BCTHW)


def compile_blocks(network: Any, backend: str = "inductor") -> None:
    """Run the blocks through torch.compile from now on: one compilation serves all of them, as they are alike.

    What can't be compiled (no compiler at hand, say) runs as it is.
    """
    import torch._dynamo

    torch._dynamo.config.suppress_errors = True
    compiled = torch.compile(_block, backend=backend)
    for block in network.blocks:
        setattr(block, _COMPILED, compiled)


_COMPILED = "_kinoswarm_compiled"


def restore_buffers(network: Any) -> None:
    """Give a network that was built on the meta device its rotary tables, which no checkpoint holds."""
    config = network.config
    network.rope = type(network.rope)(
        config.attention_head_dim, config.patch_size, config.rope_max_seq_len
    )


def stock_wan_forward(network: Any, x_t_BCTHW: Tensor, t_B: Tensor, text_BLD: Tensor) -> Tensor:
    """The same through diffusers' own forward pass: readable documentation of the fast one, and its test."""
    channels = network.config.in_channels - x_t_BCTHW.shape[1]
    if channels:
        positions = position_channels(channels, tuple(x_t_BCTHW.shape[2:])).to(x_t_BCTHW)
        positions = positions.expand(len(x_t_BCTHW), *positions.shape[1:])
        x_t_BCTHW = torch.cat([x_t_BCTHW, positions], dim=1)
    prediction_BCTHW: Tensor = network(
        hidden_states=x_t_BCTHW,
        timestep=t_B * WAN_TIMESTEPS,
        encoder_hidden_states=text_BLD,
        return_dict=False,
    )[0]
    return prediction_BCTHW


@lru_cache(maxsize=8)
def position_channels(channels: int, grid: tuple[int, int, int]) -> Tensor:
    """cos(pi f u), f = 1, 2, ..., along frames, rows and columns in turn (u in 0..1): (1, channels, T, H, W)."""
    planes = []
    for index in range(channels):
        axis, frequency = index % 3, index // 3 + 1
        u = (torch.arange(grid[axis]) + 0.5) / grid[axis]
        shape = [1, 1, 1]
        shape[axis] = grid[axis]
        planes.append(torch.cos(math.pi * frequency * u).view(shape).expand(grid))
    return torch.stack(planes).unsqueeze(0)


def _embedded(network: Any, x_BCTHW: Tensor) -> Tensor:
    """The patch convolution as one matrix product; constant position channels are embedded once, not per clip."""
    weight, bias = network.patch_embedding.weight, network.patch_embedding.bias
    patch, channels = network.config.patch_size, x_BCTHW.shape[1]
    h_BNM = functional.linear(_patches(x_BCTHW, patch), weight[:, :channels].flatten(1), bias)
    extra = weight.shape[1] - channels
    if extra == 0:
        return h_BNM
    positions = position_channels(extra, tuple(x_BCTHW.shape[2:])).to(x_BCTHW)
    return h_BNM + functional.linear(_patches(positions, patch), weight[:, channels:].flatten(1))


def _block(
    block: Any, h_BNM: Tensor, text_BLM: Tensor, modulation_B6M: Tensor, rope_NE2: Tensor
) -> Tensor:
    table = block.scale_shift_table + modulation_B6M
    shift, scale, gate, shift_2, scale_2, gate_2 = table.chunk(6, dim=1)
    attended = _self_attention(block.attn1, _modulated(block.norm1, h_BNM, shift, scale), rope_NE2)
    h_BNM = torch.addcmul(h_BNM, attended, gate)
    h_BNM = h_BNM + _cross_attention(block.attn2, block.norm2(h_BNM), text_BLM)
    fed = _feed_forward(block.ffn, _modulated(block.norm3, h_BNM, shift_2, scale_2))
    return torch.addcmul(h_BNM, fed, gate_2)


def _feed_forward(ffn: Any, h_BNM: Tensor) -> Tensor:
    """Its layers one by one: diffusers' own activation asks for torch's version, which compilers stumble over."""
    out_BNM: Tensor = ffn.net[2](functional.gelu(ffn.net[0].proj(h_BNM), approximate="tanh"))
    return out_BNM


def _modulated(norm: Any, h_BNM: Tensor, shift_B1M: Tensor, scale_B1M: Tensor) -> Tensor:
    return torch.addcmul(shift_B1M, norm(h_BNM), 1 + scale_B1M)


def _self_attention(attention: Any, h_BNM: Tensor, rope_NE2: Tensor) -> Tensor:
    q_BNM, k_BNM, v_BNM = _queries_keys_values(attention, h_BNM)
    q_BANE = _rotated(_heads(attention.norm_q(q_BNM), attention.heads), rope_NE2)
    k_BANE = _rotated(_heads(attention.norm_k(k_BNM), attention.heads), rope_NE2)
    return _attended(attention, q_BANE, k_BANE, _heads(v_BNM, attention.heads))


def _queries_keys_values(attention: Any, h_BNM: Tensor) -> tuple[Tensor, ...]:
    """As one matrix product; layers with adapters beside them are called one by one."""
    layers = (attention.to_q, attention.to_k, attention.to_v)
    if not all(type(layer) is nn.Linear for layer in layers):
        return tuple(layer(h_BNM) for layer in layers)
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    return functional.linear(h_BNM, weight, bias).chunk(3, dim=-1)


def _cross_attention(attention: Any, h_BNM: Tensor, text_BLM: Tensor) -> Tensor:
    q_BANE = _heads(attention.norm_q(attention.to_q(h_BNM)), attention.heads)
    k_BALE = _heads(attention.norm_k(attention.to_k(text_BLM)), attention.heads)
    return _attended(attention, q_BANE, k_BALE, _heads(attention.to_v(text_BLM), attention.heads))


def _attended(attention: Any, q_BANE: Tensor, k_BALE: Tensor, v_BALE: Tensor) -> Tensor:
    mixed = functional.scaled_dot_product_attention(q_BANE, k_BALE, v_BALE)
    out_BNM: Tensor = attention.to_out[0](mixed.transpose(1, 2).flatten(2))
    return out_BNM


def _heads(x_BNM: Tensor, heads: int) -> Tensor:
    batch, length, width = x_BNM.shape
    return x_BNM.view(batch, length, heads, width // heads).transpose(1, 2)


def _rotated(x_BANE: Tensor, rope_NE2: Tensor) -> Tensor:
    """Rotate pairs of features by their position's angles, as one complex product; compilers want it in reals."""
    pairs = x_BANE.float().reshape(*x_BANE.shape[:-1], -1, 2)
    if torch.compiler.is_compiling():
        (a, b), (cos, sin) = pairs.unbind(-1), rope_NE2.unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).type_as(x_BANE)
    turned = torch.view_as_complex(pairs) * torch.view_as_complex(rope_NE2)
    return torch.view_as_real(turned).flatten(-2).type_as(x_BANE)


def _rope(network: Any, x_BCTHW: Tensor) -> Tensor:
    """Cosine and sine of Wan's rotary angles, shape (N, E / 2, 2)."""
    cos, sin = network.rope(x_BCTHW)
    return torch.stack([cos[0, :, 0, 0::2].float(), sin[0, :, 0, 1::2].float()], -1)


def _patches(x_BCTHW: Tensor, patch: tuple[int, ...]) -> Tensor:
    batch, channels, frames, height, width = x_BCTHW.shape
    p_t, p_h, p_w = patch
    cut = x_BCTHW.reshape(
        batch, channels, frames // p_t, p_t, height // p_h, p_h, width // p_w, p_w
    )
    return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


def _unpatched(network: Any, out_BNP: Tensor, like_BCTHW: Tensor) -> Tensor:
    batch, channels, frames, height, width = like_BCTHW.shape
    p_t, p_h, p_w = network.config.patch_size
    grid = (frames // p_t, height // p_h, width // p_w)
    cut = out_BNP.reshape(batch, *grid, p_t, p_h, p_w, channels)
    return cut.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(like_BCTHW.shape)
