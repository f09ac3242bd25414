"""Small models, clips and shard files for tests of the model core. Owns nothing that is tested."""

from pathlib import Path

import numpy as np
import torch

from kinoswarm_model.data.shards import Shard, write_shard
from kinoswarm_model.data.text import TextBatch as ShardText
from kinoswarm_model.presets import Preset, preset
from kinoswarm_model.sampler import TextBatch
from kinoswarm_protocol.specs import ModelSpec


def tiny() -> Preset:
    return preset("tiny", frames=4, height=16, width=16, num_clusters=2)


def tiny_model() -> ModelSpec:
    return tiny().model


def make_shard(model: ModelSpec, count: int, seed: int, brightness: int = 0) -> Shard:
    """Clips with a bright bar whose place tells the caption; `brightness` shifts a whole cluster."""
    clip, text = model.clip, model.text
    generator = np.random.default_rng(seed)
    captions = count // 4 + 1
    index = np.arange(count, dtype=np.int32) % captions
    shape = (count, clip.channels, clip.frames, clip.height, clip.width)
    clips = generator.integers(brightness, brightness + 60, size=shape).astype(np.uint8)
    for row, caption in enumerate(index):
        clips[row, :, :, :, (3 * caption) % clip.width] = 200
    tokens = generator.standard_normal((captions, text.max_tokens, text.dim)).astype(np.float16)
    mask = np.zeros((captions, text.max_tokens), dtype=np.uint8)
    mask[:, :5] = 1
    tokens = (tokens * mask[:, :, None]).astype(np.float16)
    pooled = tokens[:, :5].mean(1).astype(np.float16)
    names = [f"caption {number}" for number in range(captions)]
    return Shard(clips, index, ShardText(tokens, mask, pooled), names)


def write_tiny_shard(path: Path, count: int = 24, seed: int = 0, brightness: int = 0) -> str:
    write_shard(path, make_shard(tiny_model(), count, seed, brightness))
    return str(path)


def text_batch(model: ModelSpec, count: int, seed: int = 0) -> TextBatch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, model.text.max_tokens, model.text.dim, generator=generator)
    mask = torch.ones(count, model.text.max_tokens, dtype=torch.bool)
    return TextBatch(tokens_BLD=tokens, mask_BL=mask, pooled_BD=tokens.mean(1))
