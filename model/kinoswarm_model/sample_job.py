"""A sample job: one clip of one expert alone, for a caption of its own data. Owns the clip's file.

No router and no text encoder take part: the caption's embedding lies in the shard. The same expert, caption and seed
give the same bytes, so that clips of successive versions differ by the training alone.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinoswarm_model.checkpoints import read_checkpoint
from kinoswarm_model.clip_sampling import rows_of, text_on
from kinoswarm_model.data.shards import Shard, read_shard
from kinoswarm_model.experts import expert_holding, tensor_shapes
from kinoswarm_model.jobs import JobProgress, SampleDone, SampleJob
from kinoswarm_model.sampler import RoutedModel, sample, settings_of
from kinoswarm_model.video_io import write_mp4
from kinoswarm_protocol.errors import LocalError

_WATCHABLE_HEIGHT = 256
"""Pixels: smaller clips are written enlarged by a whole number."""


def run(job: SampleJob, report: Callable[[JobProgress], None]) -> SampleDone:
    """Write `work_dir/sample.mp4`. Raises LocalError for latents, which need a VAE that no node holds."""
    if job.model.clip.codec != "pixel":
        raise LocalError("clips of one expert are made of pixels only; this swarm's are latents")
    device = torch.device(job.device)
    weights = read_checkpoint(Path(job.checkpoint_path), tensor_shapes(job.model))
    expert = expert_holding(weights, job.model).to(device).eval()
    shard = read_shard(Path(job.shard_path))
    row = most_frequent_caption(shard)
    routed = RoutedModel(
        model=job.model, expert=lambda cluster: expert, available_K=[True], router=None
    )

    def on_step(step: int, steps: int, expert_B: Tensor) -> None:
        report(
            JobProgress(
                job_id=job.job_id, step=step + 1, total=steps, loss=None, what="a sample clip"
            )
        )

    text = rows_of(text_on(shard.text, device), [row])
    settings = settings_of(job.model.recipe)
    (clip,) = routed.decode(sample(routed, text, [job.seed], settings, on_step))
    path = Path(job.work_dir) / "sample.mp4"
    write_mp4(path, clip, job.model.clip.fps, scale=max(1, _WATCHABLE_HEIGHT // clip.shape[1]))
    return SampleDone(clip_path=str(path), caption=shard.captions[row])


def most_frequent_caption(shard: Shard) -> int:
    """The row of the caption that most clips have; the first of several."""
    return int(np.bincount(shard.caption_index, minlength=len(shard.captions)).argmax())
