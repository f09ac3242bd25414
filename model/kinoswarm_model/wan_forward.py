"""How WanTransformer3DModel is called. Owns the translation from our conventions to Wan's.

Wan takes timesteps in 0..1000 and no text mask.
Shapes: B batch, C channels, T frames, H height, W width, L text tokens, D text width.
"""

from typing import Any

from torch import Tensor

WAN_TIMESTEPS = 1000.0


def wan_forward(network: Any, x_t_BCTHW: Tensor, t_B: Tensor, text_BLD: Tensor) -> Tensor:
    """Wan's own forward pass at time t in 0..1."""
    prediction_BCTHW: Tensor = network(
        hidden_states=x_t_BCTHW,
        timestep=t_B * WAN_TIMESTEPS,
        encoder_hidden_states=text_BLD,
        return_dict=False,
    )[0]
    return prediction_BCTHW
