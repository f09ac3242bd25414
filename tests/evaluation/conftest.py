"""A tiny release and tiny prepared data for it, made once."""

from pathlib import Path

import numpy as np
import pytest
from release.tiny_release import NUM_EXPERTS, tiny_model, write_tiny_release

from kinoswarm_model.checkpoints import weights_of, write_checkpoint
from kinoswarm_model.data.shards import make_shard, write_shard
from kinoswarm_model.data.text import TextBatch
from kinoswarm_model.evaluation.evaluate import EvaluationInput
from kinoswarm_model.experts import build_expert

HELDOUT_PER_CLUSTER = 5
PUBLIC_PER_CLUSTER = 12


def write_clips(path: Path, cluster: int, count: int, seed: int) -> Path:
    """A shard of noisy clips whose brightness tells the cluster; every third clip shares a caption."""
    model = tiny_model()
    clip, text = model.clip, model.text
    generator = np.random.default_rng([seed, cluster])
    shape = (count, clip.channels, clip.frames, clip.height, clip.width)
    darkest = min(100 * cluster, 155)
    pixels = generator.integers(darkest, darkest + 100, shape, dtype=np.uint8)
    captions = [f"cluster {cluster}, scene {i % 3}" for i in range(count)]
    distinct = sorted(set(captions))
    pooled = np.random.default_rng([7, cluster]).standard_normal((len(distinct), text.dim))
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    tokens = pooled[:, None].repeat(text.max_tokens, axis=1)
    embedded = TextBatch(
        tokens.astype(np.float16),
        np.ones(tokens.shape[:2], dtype=np.uint8),
        pooled.astype(np.float16),
    )
    rows = {caption: row for row, caption in enumerate(distinct)}
    write_shard(path, make_shard(pixels, captions, rows, embedded))
    return path


@pytest.fixture(scope="session")
def tiny_input(tmp_path_factory: pytest.TempPathFactory) -> EvaluationInput:
    folder = tmp_path_factory.mktemp("evaluation")
    done, _ = write_tiny_release(folder)
    seed = folder / "seed.safetensors"
    write_checkpoint(seed, weights_of(build_expert(tiny_model(), seed=5).network))
    clusters = range(NUM_EXPERTS)
    return EvaluationInput(
        model_dir=Path(done.release_dir),
        heldout_by_cluster=[
            write_clips(folder / f"heldout-{k}.safetensors", k, HELDOUT_PER_CLUSTER, 1)
            for k in clusters
        ],
        shards_by_cluster=[
            [write_clips(folder / f"shard-{k}.safetensors", k, PUBLIC_PER_CLUSTER, 2)]
            for k in clusters
        ],
        seed_checkpoint=seed,
    )
