"""The comparison's clips as a founder's prepared data folder, and the preset that trains what the bare loop trains.

Owns both. Clips are the linear codec's latents. A swarm on latents needs a VAE for its sample clips: the one here is
random, so those show nothing; the row is measured with the grid's own codec. Contributions are judged on the `floor`
part, so that no clip which the row is measured with had a say in what was merged.
Shapes: N clips, K channels, T H W of latents.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from benchmarks.quality.clips import Clips, QualityData
from benchmarks.quality.regime import Regime, model_of
from benchmarks.quality.sides import Setup, budget_of, partition_of
from msgspec import structs

from kinoswarm_model.data.data_manifest import (
    MANIFEST_NAME,
    VAE_FOLDER,
    Clip,
    DataCluster,
    DataFile,
    DataManifest,
)
from kinoswarm_model.data.shards import make_shard, write_shard
from kinoswarm_model.data.text import TextBatch
from kinoswarm_model.presets import Preset, preset
from kinoswarm_protocol.charter import Policy
from kinoswarm_protocol.specs import ModelSpec, VaeSpec

FPS = 8
_VAE_FRAMES, _VAE_PIXELS = 4, 8
"""Frames, and rows and columns, that Wan's VAE packs into one."""


@dataclass(frozen=True, kw_only=True)
class SwarmPlan:
    """How the experts' steps are cut into segments."""

    versions: int = 4
    """Of every expert; each is one accepted segment."""
    heldout_pairs: int = 256
    seed: int = 0
    """Of the partition and of the common seed, as the bare loop's."""


def write_data(
    folder: Path, data: QualityData, floor: Clips, regime: Regime, setup: Setup, seed: int = 0
) -> DataManifest:
    """A prepared folder: a public shard and a private file per cluster. `floor` has latents, as training has."""
    assert data.training.latents is not None, "the regime has no codec: there are no latents"
    vae = vae_spec(regime)
    _write_random_vae(folder / VAE_FOLDER, len(vae.mean))
    label_N, cluster_of_place = partition_of(data, setup, seed=seed)
    clusters = [
        DataCluster(
            label=f"places {k}",
            num_clips=int((label_N == k).sum()),
            shards=[_write(folder, f"shards/{k:02d}.safetensors", data.training, label_N == k)],
            heldout=_write(
                folder, f"heldout/{k:02d}.safetensors", floor, cluster_of_place[floor.place] == k
            ),
        )
        for k in range(setup.num_experts)
    ]
    text, clip = model_of(regime).text, data.training.latents.shape[2:]
    frames, height, width = (int(size) for size in clip)
    manifest = DataManifest(
        clip=Clip(1 + (frames - 1) * _VAE_FRAMES, height * _VAE_PIXELS, width * _VAE_PIXELS, FPS),
        text_encoder=text.encoder,
        text_dim=text.dim,
        text_tokens=text.max_tokens,
        seed=seed,
        num_sources=len(data.training) + len(floor),
        left_out={},
        clusters=clusters,
        vae=vae,
        latents=(frames, height, width),
    )
    (folder / MANIFEST_NAME).write_bytes(msgspec.json.encode(manifest))
    return manifest


def swarm_preset(regime: Regime, setup: Setup, plan: SwarmPlan) -> Preset:
    """What the bare loop does, as a charter says it: the same network, recipe, batch, and steps of seed and experts."""
    spent, batch = budget_of(regime, setup), setup.batch_size // setup.num_experts
    steps = spent.expert_steps // plan.versions
    base = preset("tiny", frames=4, height=16, width=16, num_clusters=setup.num_experts)
    return Preset(
        model=swarm_model(regime, setup),
        policy=_policy(base.policy, steps, batch, plan),
        seed_steps=spent.seed_steps,
        segment_steps=steps,
    )


def swarm_model(regime: Regime, setup: Setup) -> ModelSpec:
    """The regime's model with this side's batch and rate; its clips are latents."""
    model = model_of(regime)
    return structs.replace(
        model,
        clip=structs.replace(model.clip, codec="vae", fps=FPS),
        vae=vae_spec(regime),
        recipe=structs.replace(
            model.recipe,
            batch_size=setup.batch_size // setup.num_experts,
            learning_rate=setup.learning_rate,
        ),
    )


def vae_spec(regime: Regime) -> VaeSpec:
    """Latents are of about unit variance already: nothing is scaled."""
    channels = model_of(regime).clip.channels
    return VaeSpec(
        class_name="AutoencoderKLWan",
        frame_step=_VAE_FRAMES,
        pixel_step=_VAE_PIXELS,
        mean=[0.0] * channels,
        std=[1.0] * channels,
    )


def _policy(base: Policy, steps: int, batch: int, plan: SwarmPlan) -> Policy:
    return structs.replace(
        base,
        segment_s=60.0,
        segment_steps_min=steps,
        segment_steps_max=steps,
        lease_factor=20.0,
        lease_min_s=600.0,
        quorum_samples=steps * batch,
        heldout_pairs=plan.heldout_pairs,
        target_version=plan.versions,
        delta_codec="int4.1",
    )


def _write(folder: Path, name: str, clips: Clips, mask: np.ndarray) -> DataFile:
    own = clips.only(np.flatnonzero(mask))
    assert own.latents is not None
    texts = TextBatch(
        own.text.tokens_BLD.numpy().astype(np.float16),
        own.text.mask_BL.numpy().astype(np.uint8),
        own.text.pooled_BD.numpy().astype(np.float16),
    )
    rows = {caption: int(row) for caption, row in zip(own.captions, own.text_row, strict=True)}
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shard(path, make_shard(own.latents.astype(np.float16), own.captions, rows, texts))
    raw = path.read_bytes()
    return DataFile(name, len(own), len(raw), hashlib.sha256(raw).hexdigest())


def _write_random_vae(folder: Path, channels: int) -> None:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    network = AutoencoderKLWan(
        base_dim=8,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    network.save_pretrained(folder)
