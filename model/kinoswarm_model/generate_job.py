"""A generate job: one prompt and seed in, an mp4 and the expert of every denoising step out. Owns the clip's file.

The same release, prompt, seed and settings give the same bytes, and the same clip as `kinoswarm generate` makes.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kinoswarm_model.clip_sampling import text_on
from kinoswarm_model.generate import GenerateConfig, check_request, settings_from
from kinoswarm_model.jobs import GenerateDone, GenerateJob, JobProgress
from kinoswarm_model.release_reader import open_release
from kinoswarm_model.sampler import sample
from kinoswarm_model.video_io import write_mp4

_WATCHABLE_HEIGHT = 256
"""Pixels: smaller clips are written enlarged by a whole number."""

Report = Callable[[JobProgress], None]


def run(job: GenerateJob, report: Report) -> GenerateDone:
    """Write `work_dir/clip.mp4`. Raises LocalError for a prompt or release that can't be used, RemoteError for a
    release with foreign contents."""
    config = GenerateConfig(seed=job.seed, device=job.device)
    check_request([job.prompt], config)
    release = open_release(Path(job.release_dir))
    device = torch.device(job.device)
    release.move(device)
    settings = settings_from(release, config)
    picked: list[int] = []

    def on_step(step: int, steps: int, expert_B: Tensor) -> None:
        picked.append(int(expert_B[0]))
        report(
            JobProgress(
                job_id=job.job_id,
                step=step + 1,
                total=steps,
                loss=None,
                what="denoising",
                expert=picked[-1],
            )
        )

    text = text_on(release.text.encode([job.prompt]), device)
    routed = release.routed()
    (clip,) = routed.decode(sample(routed, text, [job.seed], settings, on_step))
    path = Path(job.work_dir) / "clip.mp4"
    scale = max(1, _WATCHABLE_HEIGHT // clip.shape[1])
    write_mp4(path, clip, release.info.model.clip.fps, scale=scale)
    return GenerateDone(
        clip_path=str(path),
        expert_by_step=picked,
        guidance=settings.guidance,
        top_k=settings.top_k,
    )
