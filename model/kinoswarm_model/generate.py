"""Text prompts to video clips from a release folder. Owns what `kinoswarm generate` may ask for and its defaults.

Importing this is cheap; torch is imported when something is generated. The same release, prompt, seed and settings
give the same clip, and the same mp4 bytes, on the same machine.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.limits import MAX_CLUSTERS, MAX_PROMPT
from kinoswarm_protocol.specs import RecipeSpec

if TYPE_CHECKING:
    from kinoswarm_model.release_reader import Release
    from kinoswarm_model.sampler import SampleSettings

MAX_CLIPS = 1_024
"""Clips of one call: they are kept in memory."""

DtypeName = Literal["float32", "bfloat16", "float16"]

OnStep = Callable[[int, int], None]
"""(denoising steps done, denoising steps in all)."""


class GenerateConfig(Struct, frozen=True, kw_only=True):
    """How to generate. None takes the recipe's own value."""

    seed: Annotated[int, Meta(ge=0, le=2**53)] = 0
    """Of the first clip; clip i of a call uses seed + i."""
    steps: Annotated[int, Meta(ge=1, le=1_000)] | None = None
    """Denoising steps."""
    guidance: Annotated[float, Meta(ge=0.0, le=100.0)] | None = None
    """1 is off."""
    top_k: Annotated[int, Meta(ge=1, le=MAX_CLUSTERS)] | None = None
    """Experts mixed at every step; more than there are means all."""
    threshold: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    """Mix every expert of at least this probability, and the most probable one always, instead of the top k."""
    clips_per_prompt: Annotated[int, Meta(ge=1, le=MAX_CLIPS)] = 1
    batch_size: Annotated[int, Meta(ge=1, le=MAX_CLIPS)] = 1
    """Clips at once; 1 keeps a clip's bytes independent of its neighbours."""
    num_frames: Annotated[int, Meta(ge=1, le=4_096)] | None = None
    """Frames of a clip; None is the length that experts were trained on."""
    device: str = "cpu"
    dtype: DtypeName = "float32"
    """Of the experts' weights."""
    experts_in_memory: Annotated[int, Meta(ge=0, le=MAX_CLUSTERS)] = 0
    """The least recently used go beyond these; 0 keeps all that were used."""


def generate(
    model_dir: Path,
    prompts: Sequence[str],
    config: GenerateConfig,
    on_step: OnStep | None = None,
) -> list[NDArray[np.uint8]]:
    """Clips of shape (T, H, W, 3), `clips_per_prompt` for every prompt, in the order of the prompts.

    Raises LocalError for prompts or settings that can't be used and for a folder that is not a whole release, a
    RemoteError for a release with foreign contents.
    """
    check_request(prompts, config)
    from kinoswarm_model.release_reader import open_release

    return generate_from(open_release(model_dir), prompts, config, on_step)


def generate_from(
    release: "Release",
    prompts: Sequence[str],
    config: GenerateConfig,
    on_step: OnStep | None = None,
) -> list[NDArray[np.uint8]]:
    """As generate, from a release that is open already."""
    check_request(prompts, config)
    import torch

    from kinoswarm_model.clip_sampling import rows_of, sample_clips, text_on
    from kinoswarm_model.devices import named_device

    device = named_device(config.device)
    release.move(device, getattr(torch, config.dtype))
    release.experts.keep_at_most(config.experts_in_memory or None)
    rows = [i for i in range(len(prompts)) for _ in range(config.clips_per_prompt)]
    text = rows_of(text_on(release.text.encode(prompts), device), rows)
    seeds = [config.seed + i for i in range(len(rows))]
    settings = settings_from(release, config)
    routed = release.routed(config.num_frames)
    sampled = sample_clips(routed, text, seeds, settings, config.batch_size, on_step)
    return [clip[: config.num_frames] for clip in sampled.clips]


def settings_from(release: "Release", config: GenerateConfig) -> "SampleSettings":
    """The sampler's settings: what was asked for, else the recipe's."""
    return recipe_settings(release.info.model.recipe, config)


def recipe_settings(recipe: RecipeSpec, config: GenerateConfig) -> "SampleSettings":
    """As settings_from, where only the recipe is at hand."""
    from kinoswarm_model.sampler import SampleSettings

    return SampleSettings(
        steps=recipe.sample_steps if config.steps is None else config.steps,
        guidance=recipe.guidance if config.guidance is None else config.guidance,
        shift=recipe.shift,
        top_k=recipe.top_k if config.top_k is None else config.top_k,
        threshold=config.threshold,
    )


def check_request(prompts: Sequence[str], config: GenerateConfig) -> None:
    """Raises LocalError saying which prompt or setting can't be used and what is allowed."""
    check_config(config)
    if not prompts:
        raise LocalError("generate needs at least one prompt")
    clips = len(prompts) * config.clips_per_prompt
    if clips > MAX_CLIPS:
        raise LocalError(f"{clips} clips asked for; at most {MAX_CLIPS} in one call")
    for prompt in prompts:
        _check_prompt(prompt)


def check_config(config: GenerateConfig) -> None:
    """Raises LocalError naming the setting that is out of bounds."""
    try:
        msgspec.convert(msgspec.to_builtins(config), GenerateConfig)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise LocalError(f"generate: {where.rstrip('`') or 'the request'}: {what}") from error


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise LocalError('the prompt is empty: say what to show, as in "a corridor with torches"')
    if len(prompt) > MAX_PROMPT:
        raise LocalError(f"the prompt has {len(prompt)} characters; at most {MAX_PROMPT}")
