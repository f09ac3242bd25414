"""Presets for graphics cards at home: Wan-class transformers on cached latents. Owns these numbers; free of torch.

Each names the card's memory. Sizes leave room for one clip at a time with activation checkpointing in the mode that the
preset lists first for such a card; `kinoswarm presets` prints the sums.
"""

from dataclasses import dataclass

from kinoswarm_protocol.charter import Policy
from kinoswarm_protocol.specs import ExpertSpec, ModeSpec, RecipeSpec, RouterSpec

_FULL, _EIGHT_BIT = ModeSpec(name="full"), ModeSpec(name="adam8bit")


@dataclass(frozen=True, kw_only=True)
class HomePreset:
    """A transformer and the clips that it is meant for."""

    heads: int
    ffn: int
    layers: int
    frames: int
    """Of pixels, as are height and width: the clips that the preset's figures are stated for."""
    height: int
    width: int
    modes: tuple[ModeSpec, ...]
    learning_rate: float


HOME_PRESETS = {
    "home-8gb": HomePreset(
        heads=8,
        ffn=4_096,
        layers=14,
        frames=17,
        height=256,
        width=256,
        modes=(_FULL, _EIGHT_BIT, ModeSpec(name="lora", rank=32)),
        learning_rate=2e-4,
    ),
    "home-12gb": HomePreset(
        heads=10,
        ffn=5_120,
        layers=16,
        frames=17,
        height=256,
        width=384,
        modes=(_FULL, _EIGHT_BIT, ModeSpec(name="lora", rank=32)),
        learning_rate=2e-4,
    ),
    "home-24gb": HomePreset(
        heads=12,
        ffn=8_960,
        layers=30,
        frames=33,
        height=320,
        width=512,
        modes=(_FULL, _EIGHT_BIT, ModeSpec(name="lora", rank=64)),
        learning_rate=1e-4,
    ),
}
"""`home-24gb` has the shape of Wan2.1-T2V-1.3B, so that it can start from its weights; full training of it needs more
than the card has, and machines that have more propose it."""

HEAD_DIM = 128


def wan_on_latents(
    *, heads: int, ffn: int, layers: int, channels: int, text_dim: int, head_dim: int = HEAD_DIM
) -> ExpertSpec:
    """A Wan transformer in Wan's own shape: patches of 1x2x2 latents."""
    return ExpertSpec(
        class_name="WanTransformer3DModel",
        config={
            "patch_size": [1, 2, 2],
            "num_attention_heads": heads,
            "attention_head_dim": head_dim,
            "in_channels": channels,
            "out_channels": channels,
            "text_dim": text_dim,
            "freq_dim": 256,
            "ffn_dim": ffn,
            "num_layers": layers,
            "cross_attn_norm": True,
            "rope_max_seq_len": 1_024,
        },
    )


def latent_recipe(
    *, batch_size: int, learning_rate: float, warmup_steps: int = 20, sample_steps: int = 30
) -> RecipeSpec:
    """Velocity prediction with logit-normal times, shifted towards noise as for latents of video (Wan 2.1)."""
    return RecipeSpec(
        prediction="velocity",
        t_floor=0.05,
        t_mean=0.0,
        t_std=1.0,
        shift=3.0,
        text_dropout=0.1,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        weight_decay=0.01,
        beta_1=0.9,
        beta_2=0.95,
        grad_clip=1.0,
        sample_steps=sample_steps,
        guidance=5.0,
        top_k=1,
    )


def home_router() -> RouterSpec:
    """Small beside any expert: at most 4% of the FLOPs of a guided step."""
    return RouterSpec(
        width=384,
        depth=6,
        heads=6,
        patch=[1, 2, 2],
        text_dropout=0.3,
        learning_rate=3e-4,
        batch_size=64,
        steps=20_000,
        share_cap=2.0,
    )


def home_policy() -> Policy:
    """Segments of twenty minutes of a node's own speed; a version is cut by a day's work of a few machines."""
    return Policy(
        segment_s=1_200.0,
        segment_steps_min=10,
        segment_steps_max=2_000,
        lease_factor=4.0,
        lease_min_s=600.0,
        quorum_samples=32_000,
        grace_s=6 * 3_600.0,
        max_staleness=2,
        staleness_decay=0.5,
        outer_rate=0.7,
        outer_momentum=0.9,
        norm_clip=3.0,
        heldout_margin=0.01,
        heldout_pairs=256,
        target_version=0,
        delta_codec="int4.1",
        work_ahead=3.0,
        audit_one_in=80,
        audit_first=8,
        audit_distance=0.25,
        audit_wait_s=6 * 3_600.0,
        unproven_share=0.5,
        ban_first_s=6 * 3_600.0,
        account_leases=64,
        range_newcomers=16,
    )
