"""What both sides of the comparison share and what may differ. Owns the numbers of the chosen regime.

The monolith takes `steps` optimizer steps at `batch_size`. Experts take as many, each at batch_size / K, less what the
common seed and the router cost: all FLOPs of the experts' side together are at most the monolith's.
"""

from dataclasses import dataclass

from benchmarks.quality.clips import FilmPlan
from benchmarks.quality.latents import LatentPlan

from kinoswarm_model.presets import TEXT_DIM, TEXT_ENCODER
from kinoswarm_protocol.specs import (
    ClipSpec,
    ExpertSpec,
    ModelSpec,
    ModeSpec,
    RecipeSpec,
    RouterSpec,
    TextSpec,
)


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """One class of network for every model of the comparison."""

    heads: int
    head_dim: int
    ffn: int
    layers: int
    patch: tuple[int, int, int]
    positions: int = 12


@dataclass(frozen=True, kw_only=True)
class RouterPlan:
    """The router's size and training; its FLOPs are the experts' to pay."""

    width: int
    depth: int
    heads: int
    patch: tuple[int, int, int]
    batch_size: int
    steps: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Regime:
    """A whole comparison at one size."""

    film: FilmPlan
    network: NetworkSize
    router: RouterPlan
    steps: int
    """Optimizer steps of the monolith at `batch_size`; samples in all are the product."""
    batch_size: int
    sample_steps: int
    shift: float = 3.0
    t_floor: float = 0.4
    text_dropout: float = 0.1
    latent: LatentPlan | None = None
    """How clips are encoded; None leaves pixels."""


_UNUSED_RATE = 1e-3
"""A model's recipe has to name a rate; here each side's setup does."""


def model_of(regime: Regime) -> ModelSpec:
    """The swarm model of this regime: what `build_expert`, the router and the sampler take."""
    film, size, router, plan = regime.film, regime.network, regime.router, regime.latent
    channels = plan.channels if plan else 3
    t, h, w = plan.patch if plan else (1, 1, 1)
    return ModelSpec(
        preset="quality",
        expert=ExpertSpec(
            class_name="WanTransformer3DModel",
            config={
                "patch_size": list(size.patch),
                "num_attention_heads": size.heads,
                "attention_head_dim": size.head_dim,
                "in_channels": channels + size.positions,
                "out_channels": channels,
                "text_dim": TEXT_DIM,
                "freq_dim": 64,
                "ffn_dim": size.ffn,
                "num_layers": size.layers,
                "cross_attn_norm": True,
                "rope_max_seq_len": 64,
            },
        ),
        clip=ClipSpec(
            codec="pixel",
            channels=channels,
            frames=film.frames // t,
            height=film.height // h,
            width=film.width // w,
            fps=8,
        ),
        text=TextSpec(encoder=TEXT_ENCODER, dim=TEXT_DIM, max_tokens=film.tokens),
        router=RouterSpec(
            width=router.width,
            depth=router.depth,
            heads=router.heads,
            patch=list(router.patch),
            text_dropout=0.3,
            learning_rate=router.learning_rate,
            batch_size=router.batch_size,
            steps=router.steps,
        ),
        recipe=RecipeSpec(
            prediction="clean",
            t_floor=regime.t_floor,
            t_mean=0.0,
            t_std=1.0,
            shift=regime.shift,
            text_dropout=regime.text_dropout,
            batch_size=regime.batch_size,
            learning_rate=_UNUSED_RATE,
            warmup_steps=20,
            weight_decay=0.0,
            beta_1=0.9,
            beta_2=0.95,
            grad_clip=1.0,
            sample_steps=regime.sample_steps,
            guidance=1.0,
            top_k=1,
        ),
        modes=[ModeSpec(name="full")],
    )
