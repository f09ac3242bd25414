"""What a charter says about the model: expert, codec, text, router, recipe. Owns these types and their bounds.

Building anything from them is kinoswarm_model's job; it counts parameters on the meta device first.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from kinoswarm_protocol.limits import MAX_CLIP_VALUES, MAX_CONFIG_KEYS, MAX_NAME

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Key = Annotated[str, Meta(min_length=1, max_length=MAX_NAME, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Number = Annotated[int, Meta(ge=-(2**31), le=2**31)]
SmallText = Annotated[str, Meta(max_length=MAX_NAME)]
ConfigValue = (
    bool | Number | float | SmallText | Annotated[list[Number], Meta(max_length=16)] | None
)
Config = Annotated[dict[Key, ConfigValue], Meta(max_length=MAX_CONFIG_KEYS)]

Dim = Annotated[int, Meta(ge=1, le=65_536)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Rate = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0, le=1e12)]
NonNegative = Annotated[float, Meta(ge=0.0, le=1e12)]
Flops = Annotated[float, Meta(ge=0.0, le=1e30)]
"""Floating-point operations; a segment of a large model is about 1e18."""

ExpertClass = Literal[
    "WanTransformer3DModel",
    "LTXVideoTransformer3DModel",
    "CogVideoXTransformer3DModel",
    "HunyuanVideoTransformer3DModel",
]
"""The allow-list: only these diffusers classes are ever built from a charter, a release or a model_index."""

DeltaCodec = Literal["int8.1", "int4.1", "sparse.1"]
"""How weight deltas may be packed (kinoswarm_model/delta_codecs.py); the number rises with the format."""

Objective = Literal["velocity", "epsilon"]
"""Whose squared error an expert is trained and judged by: the velocity's, or the noise's, which weighs small t more
(arXiv 2603.06741). What its network puts out is the recipe's in either case (kinoswarm_model/flow.py)."""


class ExpertSpec(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """One video denoiser: a diffusers class and its constructor's keyword arguments."""

    class_name: ExpertClass
    config: Config


class ClipSpec(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """Geometry of one training clip as the expert sees it: of pixels, or of latents."""

    codec: Literal["pixel", "vae"]
    """`pixel`: x = u8 / 127.5 - 1, the expert patchifies; `vae`: cached latents of the release's VAE."""
    channels: Annotated[int, Meta(ge=1, le=256)]
    frames: Annotated[int, Meta(ge=1, le=4_096)]
    height: Annotated[int, Meta(ge=1, le=8_192)]
    width: Annotated[int, Meta(ge=1, le=8_192)]
    fps: Annotated[int, Meta(ge=1, le=240)]
    """Of the pixels' frames."""

    def __post_init__(self) -> None:
        values = self.channels * self.frames * self.height * self.width
        if values > MAX_CLIP_VALUES:
            raise ValueError(f"clip of {values} numbers; at most {MAX_CLIP_VALUES}")


VaeClass = Literal[
    "AutoencoderKLWan",
    "AutoencoderKLHunyuanVideo",
    "AutoencoderKLLTXVideo",
    "AutoencoderKLCogVideoX",
]
"""The allow-list: only these diffusers classes ever decode latents."""


class VaeSpec(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """How pixels and latents belong together. Experts see (latent - mean) / std, channel by channel."""

    class_name: VaeClass
    frame_step: Annotated[int, Meta(ge=1, le=64)]
    """Frames of pixels for each latent frame after the first."""
    pixel_step: Annotated[int, Meta(ge=1, le=64)]
    """Rows, and columns, of pixels for each of the latent's."""
    mean: Annotated[
        list[Annotated[float, Meta(ge=-1e6, le=1e6)]], Meta(min_length=1, max_length=256)
    ]
    std: Annotated[list[Positive], Meta(min_length=1, max_length=256)]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} deviations of channels")


class TextSpec(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The text encoder that made the cached embeddings; generation must use the same one."""

    encoder: Name
    dim: Dim
    max_tokens: Annotated[int, Meta(ge=1, le=4_096)]


class RouterSpec(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The cluster classifier p(k | x_t, t, pooled text) (arXiv 2501.05450)."""

    width: Annotated[int, Meta(ge=8, le=8_192)]
    depth: Annotated[int, Meta(ge=1, le=128)]
    heads: Annotated[int, Meta(ge=1, le=128)]
    patch: Annotated[list[Annotated[int, Meta(ge=1, le=64)]], Meta(min_length=3, max_length=3)]
    """Patch size in frames, rows, columns."""
    text_dropout: Rate
    learning_rate: Positive
    batch_size: Annotated[int, Meta(ge=1, le=65_536)]
    steps: Annotated[int, Meta(ge=1, le=10_000_000)]
    share_cap: Annotated[float, Meta(ge=0.0, le=4_096.0)] = 0.0
    """No expert is picked more often than this many times its fair share (1 / clusters); 0 is off, else at least 1."""

    def __post_init__(self) -> None:
        if 0.0 < self.share_cap < 1.0:
            raise ValueError(f"share_cap {self.share_cap}: at least 1, or 0 for off")


class RecipeSpec(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """How experts are trained. t runs from 0 (data) to 1 (noise)."""

    prediction: Literal["clean", "velocity"]
    """`clean`: the network predicts x_0 and v = (x_t - x_0) / t (arXiv 2511.13720); `velocity`: eps - x_0."""
    t_floor: Annotated[float, Meta(gt=0.0, lt=1.0)]
    """Division by t is clamped here."""
    t_mean: Annotated[float, Meta(ge=-10.0, le=10.0)]
    t_std: Annotated[float, Meta(gt=0.0, le=10.0)]
    """t = sigmoid(t_mean + t_std * normal)."""
    shift: Positive
    """t' = shift t / (1 + (shift - 1) t); 1 is off."""
    text_dropout: Rate
    batch_size: Annotated[int, Meta(ge=1, le=65_536)]
    learning_rate: Positive
    warmup_steps: Annotated[int, Meta(ge=0, le=1_000_000)]
    """Linear warm-up at the start of every segment: optimizer state is fresh there."""
    weight_decay: NonNegative
    beta_1: Rate
    beta_2: Rate
    grad_clip: Positive
    sample_steps: Annotated[int, Meta(ge=1, le=1_000)]
    guidance: Annotated[float, Meta(ge=0.0, le=100.0)]
    top_k: Annotated[int, Meta(ge=1, le=4_096)]


class ModeSpec(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """One way in which a segment may be computed; a lease fixes the whole of it, so two LoRA ranks are two modes."""

    name: Literal["full", "adam8bit", "lora"]
    """`full`: all weights by AdamW; `adam8bit`: the same with moments of 8 bits; `lora`: low-rank updates."""
    rank: Annotated[int, Meta(ge=0, le=1_024)] = 0
    """Of `lora`, at least 1; the other modes have none."""

    def __post_init__(self) -> None:
        if (self.name == "lora") != (self.rank > 0):
            raise ValueError(f"mode {self.name} can't have rank {self.rank}")

    @property
    def label(self) -> str:
        """For people: full, 8bit-adam, lora-r16."""
        return {"full": "full", "adam8bit": "8bit-adam", "lora": f"lora-r{self.rank}"}[self.name]


class ModelSpec(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """Everything that a worker needs to know to build, train and sample the model."""

    preset: Name
    expert: ExpertSpec
    clip: ClipSpec
    text: TextSpec
    router: RouterSpec
    recipe: RecipeSpec
    modes: Annotated[list[ModeSpec], Meta(min_length=1, max_length=16)]
    """From the most memory to the least."""
    vae: VaeSpec | None = None
    """Of latents; None trains on pixels."""

    def __post_init__(self) -> None:
        if (self.clip.codec == "vae") != (self.vae is not None):
            raise ValueError(
                f"codec {self.clip.codec} and a VAE that is {'there' if self.vae else 'missing'}"
            )
        if self.vae is not None and len(self.vae.mean) != self.clip.channels:
            raise ValueError(
                f"{len(self.vae.mean)} channel means for {self.clip.channels} channels"
            )

    @property
    def pixels(self) -> tuple[int, int, int]:
        """Frames, rows and columns of what is shown for one clip."""
        clip, vae = self.clip, self.vae
        if vae is None:
            return clip.frames, clip.height, clip.width
        frames = 1 + (clip.frames - 1) * vae.frame_step
        return frames, clip.height * vae.pixel_step, clip.width * vae.pixel_step
