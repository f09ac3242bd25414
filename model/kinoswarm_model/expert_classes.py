"""The allow-list of expert classes and how each is called. Owns config checks against a class's signature.

Names and configs come from a charter or a release and are foreign: nothing outside the list is imported, and a config
key that the constructor does not know is an error before anything is built.
Shapes: B batch, C channels, T frames, H height, W width, L text tokens, D text width.
"""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from kinoswarm_model.wan_forward import wan_forward
from kinoswarm_protocol.errors import MalformedBytes, VersionMismatch
from kinoswarm_protocol.specs import ExpertSpec, ModelSpec

Forward = Callable[[Any, Tensor, Tensor, Tensor], Tensor]
"""(network, x_t_BCTHW, t_B in 0..1, text_tokens_BLD with masked tokens zeroed) -> prediction_BCTHW."""


def class_of(name: str) -> type[nn.Module]:
    """The diffusers class behind an allowed name. Raises VersionMismatch for a name that this version can't run."""
    if name != "WanTransformer3DModel":
        raise VersionMismatch(
            f"expert class {name!r}: this version can run WanTransformer3DModel only; update kinoswarm, or found the "
            "swarm with that class"
        )
    from diffusers import WanTransformer3DModel

    found: type[nn.Module] = WanTransformer3DModel
    return found


def forward_of(name: str) -> Forward:
    """How a network of this class is called."""
    class_of(name)
    return wan_forward


def checked_config(model: ModelSpec) -> dict[str, Any]:
    """The constructor's keyword arguments. Raises MalformedBytes naming the first key or value that does not fit."""
    spec = model.expert
    known = inspect.signature(class_of(spec.class_name).__init__).parameters
    for key in spec.config:
        if key == "self" or key not in known:
            raise MalformedBytes(f"{spec.class_name} has no setting {key!r}")
    _check_wan(spec, model)
    return dict(spec.config)


def _check_wan(spec: ExpertSpec, model: ModelSpec) -> None:
    """Wan's own constraints, which its constructor would accept and its forward pass stumble over."""
    for key in _WAN_SIZES:
        _whole(spec, key)
    patch = spec.config.get("patch_size")
    if not isinstance(patch, list) or len(patch) != 3 or min(patch) < 1:
        raise MalformedBytes(f"patch_size must be three whole numbers of at least 1, not {patch!r}")
    clip = model.clip
    for length, step, name in zip(
        (clip.frames, clip.height, clip.width), patch, ("frames", "height", "width"), strict=True
    ):
        if length % step:
            raise MalformedBytes(f"clips of {name} {length} can't be cut into patches of {step}")
        if length // step > _whole(spec, "rope_max_seq_len"):
            raise MalformedBytes(f"rope_max_seq_len is too short for {length // step} {name}")
    _check_channels(spec, clip.channels)
    _expect(spec, "out_channels", clip.channels)
    _expect(spec, "text_dim", model.text.dim)
    for key in ("image_dim", "added_kv_proj_dim", "pos_embed_seq_len"):
        if spec.config.get(key) is not None:
            raise MalformedBytes(f"{key}: image conditioning is not used; leave it out")


def _check_channels(spec: ExpertSpec, channels: int) -> None:
    """Channels beyond the clip's are position channels (wan_forward.py)."""
    found, most = _whole(spec, "in_channels"), channels + _MAX_POSITION_CHANNELS
    if not channels <= found <= most:
        raise MalformedBytes(f"in_channels must be {channels} to {most}, not {found!r}")


_MAX_POSITION_CHANNELS = 48
_WAN_SIZES = ("num_attention_heads", "attention_head_dim", "ffn_dim", "num_layers", "freq_dim")


def _whole(spec: ExpertSpec, key: str) -> int:
    value = spec.config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65_536:
        raise MalformedBytes(f"{key} must be a whole number from 1 to 65536, not {value!r}")
    return value


def _expect(spec: ExpertSpec, key: str, wanted: int) -> None:
    if spec.config.get(key) != wanted:
        raise MalformedBytes(f"{key} must be {wanted} for this swarm, not {spec.config.get(key)!r}")
