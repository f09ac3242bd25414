"""A release job: checkpoints in, a whole release folder with samples out. Owns the folder's atomic appearance.

The same job gives the same bytes. A kill leaves at most the unfinished folder, which the next attempt removes.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from kinoswarm_model.canary import chosen_experts
from kinoswarm_model.checkpoints import read_checkpoint, write_atomic
from kinoswarm_model.clip_sampling import SampledClips, sample_clips, text_on
from kinoswarm_model.data.text import TextFolders
from kinoswarm_model.expert_set import ExpertSet
from kinoswarm_model.flops import sampling_flops
from kinoswarm_model.frame_strips import frame_strip, write_png
from kinoswarm_model.jobs import Candidate, JobProgress, ReleaseDone, ReleaseJob
from kinoswarm_model.release_card import CardFigures, model_card
from kinoswarm_model.release_layout import MODEL_CARD, SAMPLES, ReleaseExpert, ReleaseInfo
from kinoswarm_model.release_reader import Release, open_release
from kinoswarm_model.release_writer import files_under, sync_files, write_release
from kinoswarm_model.router import router_shapes
from kinoswarm_model.router_figures import measured_router
from kinoswarm_model.sampler import settings_of
from kinoswarm_model.training_data import ClipSet
from kinoswarm_model.video_io import write_mp4

_MP4_SCALE = 4
_STRIP_SCALE = 3

Report = Callable[[JobProgress], None]


def run(job: ReleaseJob, report: Report) -> ReleaseDone:
    """Write `work_dir/release`, sample its prompts, say what lies there.

    Raises LocalError for a job whose lists don't fit, and what reading the checkpoints raises.
    """
    choices = chosen_experts(
        job, lambda done, total: report(_progress(job, done, total, "choosing"))
    )
    chosen = [choice.expert for choice in choices]
    info = info_of(job, chosen)
    final = Path(job.work_dir) / "release"
    part = final.with_name(".release.part")
    shutil.rmtree(part, ignore_errors=True)
    write_release(
        part,
        ExpertSet(info, [Path(expert.path) for expert in chosen]),
        read_checkpoint(Path(job.router_path), router_shapes(info.model, len(info.experts))),
        _text_of(job),
        Path(job.vae_dir) if job.vae_dir is not None else None,
    )
    release = open_release(part)
    sampled = sample_prompts(release, job, report)
    figures = _figures(release, job, sampled)
    samples = _write_samples(part, job, info, sampled, figures)
    _publish(part, final)
    return ReleaseDone(
        release_dir=str(final),
        files=files_under(final),
        sample_paths=[str(final / name) for name in samples],
        share_by_expert=sampled.share_by_expert,
        chosen=chosen,
        held_back=[
            f"{job.cluster_labels[choice.expert.cluster]}: {choice.held_back}"
            for choice in choices
            if choice.held_back
        ],
    )


def _progress(job: ReleaseJob, done: int, total: int, what: str) -> JobProgress:
    return JobProgress(job_id=job.job_id, step=done, total=total, loss=None, what=what)


def _text_of(job: ReleaseJob) -> TextFolders | None:
    folder = job.text_encoder_dir
    return TextFolders.in_one(Path(folder)) if folder is not None else None


def info_of(job: ReleaseJob, chosen: Sequence[Candidate]) -> ReleaseInfo:
    """kinoswarm.json of a job whose experts are chosen."""
    experts = [
        ReleaseExpert(label=label, version=expert.version, objective=job.objective_of(cluster))
        for cluster, (label, expert) in enumerate(zip(job.cluster_labels, chosen, strict=True))
    ]
    return ReleaseInfo(
        swarm_name=job.swarm_name,
        version=job.version,
        licence=job.licence,
        experts=experts,
        model=job.model,
    )


def sample_prompts(release: Release, job: ReleaseJob, report: Report) -> SampledClips:
    """The fixed prompts by the recipe's own settings; prompt i has seed + i, as in `kinoswarm generate`."""
    device = torch.device(job.device)
    release.move(device)

    def on_steps(done: int, total: int) -> None:
        report(_progress(job, done, total, "sampling"))

    return sample_clips(
        release.routed(),
        text_on(release.text.encode(job.prompts), device),
        [job.seed + i for i in range(len(job.prompts))],
        settings_of(job.model.recipe),
        batch_size=1,
        on_steps=on_steps,
    )


def _figures(release: Release, job: ReleaseJob, sampled: SampledClips) -> CardFigures:
    """What the card says; the router is measured when the held-out clips are at hand."""
    recipe, experts = job.model.recipe, len(release.info.experts)
    router = None
    if len(job.heldout_paths) == experts:
        heldout = ClipSet.read_clusters([[path] for path in job.heldout_paths], job.model)
        router = measured_router(release.router, heldout, job.seed, torch.device(job.device))
    return CardFigures(
        seed_flops=job.seed_flops,
        expert_flops=job.expert_flops,
        clip_flops=sampling_flops(
            job.model,
            experts,
            steps=recipe.sample_steps,
            guidance=recipe.guidance,
            top_k=recipe.top_k,
        ),
        accuracy_by_t=router.accuracy_by_t if router else [],
        calibration_error=router.calibration_error if router else 0.0,
        share_by_expert=sampled.share_by_expert if job.prompts else [],
    )


def _write_samples(
    folder: Path,
    job: ReleaseJob,
    info: ReleaseInfo,
    sampled: SampledClips,
    figures: CardFigures,
) -> list[str]:
    """Write an mp4 and a strip for every prompt and the card that shows them; gives the mp4s' relative paths."""
    names = [f"{SAMPLES}/sample-{i:02d}" for i in range(len(job.prompts))]
    (folder / SAMPLES).mkdir(exist_ok=True)
    for name, clip in zip(names, sampled.clips, strict=True):
        write_mp4(folder / f"{name}.mp4", clip, job.model.clip.fps, scale=_MP4_SCALE)
        write_png(folder / f"{name}.png", frame_strip(clip, scale=_STRIP_SCALE))
    card = model_card(info, _prompts(job.prompts), [f"{name}.png" for name in names], figures)
    write_atomic(folder / MODEL_CARD, card.encode())
    return [f"{name}.mp4" for name in names]


def _prompts(prompts: Sequence[str]) -> list[str]:
    return [prompt.strip() for prompt in prompts]


def _publish(part: Path, final: Path) -> None:
    """Put the whole folder in place of whatever an earlier attempt left."""
    sync_files(part)
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
