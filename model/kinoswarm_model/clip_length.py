"""Clips of another length than experts were trained on. Owns which lengths a model can make; torch-free.

Rotary embeddings know distances, not places: a Wan transformer runs at other lengths. How well is the model's affair.
"""

import math

from msgspec import structs

from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.limits import MAX_CLIP_VALUES
from kinoswarm_protocol.specs import ModelSpec


def model_of_length(model: ModelSpec, num_frames: int | None) -> ModelSpec:
    """The model with clips of at least `num_frames` frames, as its patches allow; None keeps the trained length.

    Raises LocalError naming the lengths that can be made.
    """
    if num_frames is None:
        return model
    step = math.lcm(_patch_frames(model), model.router.patch[0])
    frames = step * -(-_seen_frames(model, num_frames) // step)
    most = min(_most_patches(model) * _patch_frames(model), MAX_CLIP_VALUES // _frame_values(model))
    if num_frames < 1 or frames > most:
        shown = 1 + (most - 1) * model.vae.frame_step if model.vae else most
        raise LocalError(f"{num_frames} frames can't be made; this model makes 1 to {shown}")
    return structs.replace(model, clip=structs.replace(model.clip, frames=frames))


def _seen_frames(model: ModelSpec, num_frames: int) -> int:
    """Frames of what experts see, for so many of pixels."""
    if model.vae is None:
        return num_frames
    return 1 + -(-(num_frames - 1) // model.vae.frame_step)


def _patch_frames(model: ModelSpec) -> int:
    patch = model.expert.config["patch_size"]
    assert isinstance(patch, list)
    return patch[0]


def _most_patches(model: ModelSpec) -> int:
    most = model.expert.config["rope_max_seq_len"]
    assert isinstance(most, int)
    return most


def _frame_values(model: ModelSpec) -> int:
    return model.clip.channels * model.clip.height * model.clip.width
