"""Evaluates a release folder against its seed on held-out clips. Owns the order of the measurements.

Release and seed version are sampled with the same captions, seeds and steps. The result is a function of the inputs and
the settings, seed included; progress goes to a callback.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from kinoswarm_model.contact_sheet import SheetText, write_contact_sheet
from kinoswarm_model.devices import named_device
from kinoswarm_model.evaluation.frechet import METRIC, SMALLEST_SET
from kinoswarm_model.evaluation.generated import (
    Generated,
    GenerationPlan,
    generate_for,
    seed_version,
)
from kinoswarm_model.evaluation.measured import ClipSets, Measured, OnProgress, measure
from kinoswarm_model.evaluation.other_figures import Compared, OtherWeights, other_figures
from kinoswarm_model.evaluation.real_clips import RealClips, floor_and_fit_clips, heldout_clips
from kinoswarm_model.evaluation.report import EvaluationReport, OtherFigures, Sampling
from kinoswarm_model.evaluation.sheet_rows import spread_rows
from kinoswarm_model.flops import sampling_flops
from kinoswarm_model.generate import GenerateConfig, check_config
from kinoswarm_model.release_reader import Release, open_release
from kinoswarm_model.router_figures import RouterFigures, measured_router
from kinoswarm_model.sampler import SampleSettings, settings_of
from kinoswarm_model.training_data import ClipSet
from kinoswarm_protocol.errors import LocalError

_SHEET_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class EvaluationInput:
    """Where everything lies."""

    model_dir: Path
    heldout_by_cluster: Sequence[Path]
    shards_by_cluster: Sequence[Sequence[Path]]
    """Public shards: other real clips for the floor and the PCA."""
    seed_checkpoint: Path | None = None
    """Version 0 of the experts; None measures the release alone."""
    contact_sheet: Path | None = None
    """Where to write the PNG; None writes none."""
    weights: OtherWeights = field(default_factory=OtherWeights)
    """For figures whose weights no package ships."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How much is measured."""

    num_clips: int = 256
    """Clips of the release, and of the seed version; take 2,000 or more for figures that others will compare with."""
    seed: int = 0
    """Of the first clip; also draws which held-out clips are taken when not all are."""
    steps: int | None = None
    """Denoising steps; None, as in the next two, is the recipe's own value."""
    guidance: float | None = None
    top_k: int | None = None
    device: str = "cpu"


def evaluate_release(
    given: EvaluationInput, config: EvaluationConfig, on_progress: OnProgress | None = None
) -> EvaluationReport:
    """Measure a release. Raises LocalError for inputs that don't fit it, and what opening a release raises."""
    report = on_progress or (lambda done, total, what: None)
    release = open_release(given.model_dir)
    _check(given, config, release)
    plan = _plan(release, given, config)
    router = _router_figures(release, given, config, report)
    made, made_by_seed = _generate(release, given, plan, report)
    floor, projection = floor_and_fit_clips(
        given.shards_by_cluster, release.info.model, config.num_clips, config.seed
    )
    sets = ClipSets(
        heldout=plan.captions.pixels[: plan.captions.num_distinct],
        floor=floor.pixels,
        projection=projection.pixels,
        release=made.pixels,
        seed=made_by_seed.pixels if made_by_seed is not None else None,
    )
    measured = measure(sets, config.seed, report)
    other = other_figures(_compared(plan.captions, made), given.weights, report)
    captions = _write_sheet(release, given, plan.captions, made, measured)
    found = _Found(measured=measured, other=other, router=router, sheet_captions=captions)
    return _report(release, plan, made, found)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """All that the report is made from."""

    measured: Measured
    other: OtherFigures
    router: RouterFigures
    sheet_captions: list[str]


def _compared(captions: RealClips, made: Generated) -> Compared:
    distinct = captions.num_distinct
    return Compared(
        made=made.pixels,
        made_captions=captions.captions,
        real=captions.pixels[:distinct],
        real_captions=captions.captions[:distinct],
    )


def _check(given: EvaluationInput, config: EvaluationConfig, release: Release) -> None:
    clusters = len(release.info.experts)
    found = (len(given.heldout_by_cluster), len(given.shards_by_cluster))
    if found != (clusters, clusters):
        raise LocalError(
            f"held-out files of {found[0]} and shards of {found[1]} clusters, but the release has {clusters} experts; "
            "give the data that this swarm was founded on"
        )
    if config.num_clips < SMALLEST_SET:
        raise LocalError(
            f"{config.num_clips} clips can't be measured; ask for at least {SMALLEST_SET}"
        )
    check_config(
        GenerateConfig(
            seed=config.seed,
            steps=config.steps,
            guidance=config.guidance,
            top_k=config.top_k,
        )
    )


def _settings(release: Release, config: EvaluationConfig) -> SampleSettings:
    """What was asked for, else the recipe's own."""
    own = settings_of(release.info.model.recipe)
    return replace(
        own,
        steps=own.steps if config.steps is None else config.steps,
        guidance=own.guidance if config.guidance is None else config.guidance,
        top_k=own.top_k if config.top_k is None else config.top_k,
    )


def _plan(release: Release, given: EvaluationInput, config: EvaluationConfig) -> GenerationPlan:
    captions = heldout_clips(
        given.heldout_by_cluster, release.info.model, config.num_clips, config.seed
    )
    return GenerationPlan(
        captions=captions,
        settings=_settings(release, config),
        seed=config.seed,
        device=named_device(config.device),
    )


def _router_figures(
    release: Release, given: EvaluationInput, config: EvaluationConfig, on_progress: OnProgress
) -> RouterFigures:
    paths = [[str(path)] for path in given.heldout_by_cluster]
    return measured_router(
        release.router,
        ClipSet.read_clusters(paths, release.info.model),
        config.seed,
        torch.device(config.device),
        lambda done, total: on_progress(done, total, "measuring the router"),
    )


def _generate(
    release: Release, given: EvaluationInput, plan: GenerationPlan, on_progress: OnProgress
) -> tuple[Generated, Generated | None]:
    """The release's clips, and the seed version's if it is known."""
    release.move(plan.device)
    clusters = len(release.info.experts)
    made = generate_for(
        release.routed(), plan, clusters, lambda d, n: on_progress(d, n, "sampling the release")
    )
    if given.seed_checkpoint is None:
        return made, None
    routed = seed_version(release.info.model, given.seed_checkpoint, plan.device)
    return made, generate_for(
        routed, plan, clusters, lambda d, n: on_progress(d, n, "sampling the seed version")
    )


def _write_sheet(
    release: Release,
    given: EvaluationInput,
    captions: RealClips,
    made: Generated,
    measured: Measured,
) -> list[str]:
    """Write the contact sheet; gives the captions on it."""
    if given.contact_sheet is None:
        return []
    rows = spread_rows(captions, _SHEET_ROWS)
    note = (
        f"{release.info.swarm_name}, release {release.info.version}. {METRIC}: "
        f"{measured.both.release.value:.3f} (other real clips: {measured.both.floor:.3f})"
    )
    text = SheetText(
        note=_without_accents(note),
        real="held-out clips",
        generated="generated from the same captions",
    )
    given.contact_sheet.parent.mkdir(parents=True, exist_ok=True)
    write_contact_sheet(
        given.contact_sheet,
        [(captions.captions[i], captions.pixels[i], made.pixels[i]) for i in rows],
        text,
    )
    return [captions.captions[i] for i in rows]


def _without_accents(text: str) -> str:
    """The sheet's typeface has no accented letters."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _report(
    release: Release, plan: GenerationPlan, made: Generated, found: _Found
) -> EvaluationReport:
    measured = found.measured
    info = release.info
    return EvaluationReport(
        swarm_name=info.swarm_name,
        release_version=info.version,
        expert_versions=[expert.version for expert in info.experts],
        frechet=measured.both,
        frechet_motion=measured.motion,
        other=found.other,
        explained_variance=measured.explained_variance,
        samples=measured.counts,
        sampling=_sampling(release, plan),
        cluster_labels=[expert.label for expert in info.experts],
        share_by_expert=made.share_by_expert(plan.captions.clusters),
        share_by_cluster=made.share_by_cluster,
        router_accuracy_by_t=found.router.accuracy_by_t,
        router_calibration_error=found.router.calibration_error,
        contact_sheet_captions=found.sheet_captions,
    )


def _sampling(release: Release, plan: GenerationPlan) -> Sampling:
    settings = plan.settings
    return Sampling(
        steps=settings.steps,
        guidance=settings.guidance,
        top_k=settings.top_k,
        seed=plan.seed,
        flops_per_clip=sampling_flops(
            release.info.model,
            len(release.info.experts),
            steps=settings.steps,
            guidance=settings.guidance,
            top_k=settings.top_k,
        ),
    )
