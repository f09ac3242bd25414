"""What an evaluation of a release finds. Owns the types of its JSON; free of torch."""

from msgspec import Struct

from kinoswarm_model.evaluation.frechet import METRIC, UNIT, Distance


class Comparison(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The release and the seed version against the same held-out clips; lower is better."""

    release: Distance
    seed: Distance | None
    """Every expert replaced by version 0; None when no seed checkpoint was given."""
    release_by_seed: float | None
    """Ratio of the two distances: below 1, training helped."""
    floor: float
    """Distance of other real clips from the held-out ones: what a perfect model would reach with as many clips."""
    floor_details: Distance


class SampleCounts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many clips took which part."""

    generated: int
    """Of the release, and as many of the seed version with the same captions and seeds."""
    heldout: int
    floor: int
    projection: int
    """Separate real clips that the PCA was fitted on."""


class Sampling(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How clips were generated."""

    steps: int
    guidance: float
    top_k: int
    seed: int
    flops_per_clip: float


class Figure(Struct, frozen=True, kw_only=True, tag_field="is", tag="measured"):
    """One figure of the release's clips beside the same of held-out clips."""

    what: str
    """Name and unit."""
    release: float
    real: float


class NotMeasured(Struct, frozen=True, kw_only=True, tag_field="is", tag="not at hand"):
    """A figure whose weights are not here."""

    reason: str
    """What is missing and how to get it."""


class OtherFigures(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What papers report beside a Fréchet distance."""

    motion: Figure | NotMeasured
    fvd: Figure | NotMeasured
    """Published FVD on I3D."""
    clip_text: Figure | NotMeasured
    aesthetic: Figure | NotMeasured


class EvaluationReport(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Measured on held-out clips that no expert and no router was trained on."""

    metric: str = METRIC
    unit: str = UNIT
    swarm_name: str
    release_version: int
    expert_versions: list[int]
    frechet: Comparison
    """Both halves of the features: what is seen and how it moves."""
    frechet_motion: Comparison
    """The temporal half alone."""
    other: OtherFigures
    explained_variance: float
    """Share of the features' variance that the PCA keeps."""
    samples: SampleCounts
    sampling: Sampling
    cluster_labels: list[str]
    share_by_expert: list[float]
    """How often each expert was picked over all clips and steps."""
    share_by_cluster: list[list[float]]
    """The same by the cluster of the caption: row k is cluster k's held-out captions."""
    router_accuracy_by_t: list[tuple[float, float]]
    """(t, share of held-out clips whose cluster has the highest probability)."""
    router_calibration_error: float
    """How far the router's confidence is from its accuracy, over all t: 0 is right, 1 the worst (arXiv 1706.04599)."""
    contact_sheet_captions: list[str]
