"""What a service asks of its worker process and what comes back. Owns these types; local only, never on the wire.

A service (torch-free) writes one Job as a frame to the worker's stdin; the worker answers with any number of
JobProgress frames and one JobDone or JobFailed. Frames are kinoswarm_protocol.codec frames of MessagePack. Paths are
absolute paths of this machine, checked by the service; outputs appear under their final name atomically.
"""

import math
from typing import Literal

from msgspec import Struct

from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.messages import TrainOutcome
from kinoswarm_protocol.specs import DeltaCodec, ModelSpec, ModeSpec, Objective

MAX_JOB_FRAME = 4 * 1024 * 1024
FULL = ModeSpec(name="full")


class _Job(Struct, frozen=True, kw_only=True, tag_field="job", forbid_unknown_fields=True):
    job_id: str
    """Chosen by the service; the same id with the same work_dir resumes."""
    model: ModelSpec
    work_dir: str
    """Holds the resume points and outputs of this job."""
    device: str = "cpu"
    threads: int = 1


class TrainJob(_Job, frozen=True, kw_only=True, tag="train"):
    """Train one segment: `steps` optimizer steps from `base_path` on `shard_paths`; writes a compressed delta.

    Data order, noise and timesteps are functions of (seed, step, sample) only. Without `base_path` the weights start
    from `seed` (the founder's common seed) and the output is a whole checkpoint.
    """

    shard_paths: list[str]
    steps: int
    batch_size: int
    seed: int
    base_path: str | None = None
    pretrained_dir: str | None = None
    """A common seed starts from these weights instead of fresh ones."""
    objective: Objective = "velocity"
    mode: ModeSpec = FULL
    delta_codec: DeltaCodec = "int8.1"
    micro_batch: int = 0
    """0 lets the worker choose."""
    resume_every_s: float = 300.0
    """Seconds between resume points at least."""
    resume_bytes_per_day: float = 0.0
    """What resume points may write in a day; 0 is no limit."""
    checkpoint_activations: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products; auto is bfloat16 where the device has it in hardware."""
    compile_network: bool = False
    """By torch.compile; where that fails, what fails runs uncompiled."""
    steps_per_progress: int = 10


class AssignedSegment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a train lease assigned."""

    seed: int
    steps: int
    batch_size: int


class EvaluateJob(_Job, frozen=True, kw_only=True, tag="evaluate"):
    """Paired held-out loss of base + each delta against the base, on equal (x, noise, t) triples."""

    base_path: str
    delta_paths: list[str]
    heldout_path: str
    pairs: int
    seed: int
    objective: Objective = "velocity"
    """Of the cluster's expert: losses are of what it is trained on."""
    segments: list[AssignedSegment | None] = []
    """By delta; None, or nothing at all, where nobody asks what it was trained on."""
    shard_paths: list[str] = []
    """Of the cluster; needed for that."""
    foreign_heldout_path: str | None = None
    """Of another cluster: was a delta trained for it instead?"""
    probes: int = 0
    """Samples of each of these two looks."""


class CompareJob(_Job, frozen=True, kw_only=True, tag="compare"):
    """How far apart deltas lie that were trained under one work order."""

    delta_paths: list[str]


class MergeDelta(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One accepted contribution of a merge."""

    path: str
    weight: float
    """Share before normalisation: samples times staleness decay."""
    key: str
    """Sort key (contribution id): the result must not depend on arrival order."""


class MergeJob(_Job, frozen=True, kw_only=True, tag="merge"):
    """base + outer step of the weighted, clipped deltas; then the paired test of the result against the base."""

    base_path: str
    deltas: list[MergeDelta]
    outer_rate: float
    outer_momentum: float
    momentum_path: str | None
    """Momentum of the previous merge of this lineage, if any."""
    norm_clip: float
    heldout_path: str
    pairs: int
    seed: int
    objective: Objective = "velocity"
    """As of an EvaluateJob."""
    freshness: float = 1.0
    """As of its MergeOrder."""


class RebuildJob(_Job, frozen=True, kw_only=True, tag="rebuild"):
    """A version from an older one and the steps between, oldest first; it must be the very bytes of `blob`."""

    base_path: str
    step_paths: list[str]
    blob: str


class RouteJob(_Job, frozen=True, kw_only=True, tag="route"):
    """Train the router on all clusters' shards; measure its accuracy on the held-out files."""

    shard_paths_by_cluster: list[list[str]]
    heldout_paths: list[str]
    steps: int
    seed: int
    base_path: str | None = None
    """Of a router of the first `base_clusters` that goes on with a larger head; None starts from nothing."""
    base_clusters: int = 0
    resume_every_s: float = 60.0


class Candidate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version of an expert that may enter a release."""

    cluster: int
    version: int
    path: str
    lineage: int = 0


class ReleaseJob(_Job, frozen=True, kw_only=True, tag="release"):
    """Choose the experts, write a release folder (diffusers layout), then sample clips for fixed prompts."""

    swarm_name: str
    version: int
    experts: list[Candidate]
    """The newest version of every lineage; one or more of every cluster."""
    standing: list[Candidate] = []
    """Those of the last release, which stay where they are better."""
    heldout_paths: list[str] = []
    """By cluster; needed where there is something to choose."""
    pairs: int = 0
    margin: float = 0.0
    """A newer version is held back when it is worse by over two standard errors and this share."""
    cluster_labels: list[str]
    objectives: list[Objective] = []
    """By cluster; nothing at all where every expert has the usual one."""
    router_path: str
    text_encoder_dir: str | None
    """None: the installed default encoder."""
    prompts: list[str]
    seed: int
    licence: str
    vae_dir: str | None = None
    """Of a model on latents."""
    seed_flops: float = 0.0
    """Of training the common seed, for the model card; 0 is not known, as for the next."""
    expert_flops: float = 0.0
    """Of all credited training."""

    def objective_of(self, cluster: int) -> Objective:
        """Of a cluster's expert. Raises LocalError when some clusters have one and others none."""
        if not self.objectives:
            return "velocity"
        if len(self.objectives) != len(self.cluster_labels):
            raise LocalError(
                f"{len(self.objectives)} objectives for {len(self.cluster_labels)} clusters; name one for each, or none"
            )
        return self.objectives[cluster]


class GenerateJob(_Job, frozen=True, kw_only=True, tag="generate"):
    """One clip from a release folder by the recipe's own settings, as an mp4."""

    release_dir: str
    prompt: str
    seed: int


class SampleJob(_Job, frozen=True, kw_only=True, tag="sample"):
    """One clip of one expert alone, for the most frequent caption of a shard."""

    checkpoint_path: str
    shard_path: str
    seed: int


class SelfTestJob(_Job, frozen=True, kw_only=True, tag="self_test"):
    """A known-answer training step, and the time per optimizer step on this device."""

    batch_size: int
    seed: int


Job = (
    TrainJob
    | EvaluateJob
    | CompareJob
    | MergeJob
    | RebuildJob
    | RouteJob
    | ReleaseJob
    | GenerateJob
    | SampleJob
    | SelfTestJob
)


class PairedLoss(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mean held-out losses over equal triples, and the difference candidate - base with its standard error."""

    base: float
    candidate: float
    difference: float
    standard_error: float
    num_pairs: int


class TrainDone(Struct, frozen=True, kw_only=True, tag="train", forbid_unknown_fields=True):
    output_path: str
    """Compressed delta, or a checkpoint when the job had no base."""
    steps: int
    samples: int
    loss_first: float
    loss_last: float
    """Means over the first and last tenth of the steps."""
    delta_norm: float
    seconds: float
    flops: float
    micro_batch: int = 0
    """What it was trained with in the end: smaller than asked for when memory ran out."""
    checkpoint_activations: bool = False

    @property
    def is_finite(self) -> bool:
        """Whether its figures are numbers: a machine whose memory is faulty gives others."""
        return all(map(math.isfinite, (self.loss_first, self.loss_last, self.delta_norm)))

    def outcome(self, delta: BlobId, delta_bytes: int) -> TrainOutcome:
        """What is handed in, once the output lies in a store."""
        return TrainOutcome(
            delta=delta,
            delta_bytes=delta_bytes,
            samples=self.samples,
            steps=self.steps,
            loss_first=self.loss_first,
            loss_last=self.loss_last,
            delta_norm=self.delta_norm,
            seconds=max(self.seconds, 1e-3),
            flops=self.flops,
        )


class DeltaReport(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was found in one delta file; `problem` is empty when it can be used."""

    code: str
    """A kinoswarm_protocol.errors.Code value; "accepted" when there is no problem."""
    problem: str
    norm: float
    loss: PairedLoss | None
    assigned: PairedLoss | None = None
    """Of the samples that the lease assigned, against the same clips and times under other noise (own_work.py)."""
    foreign: PairedLoss | None = None
    """Of another cluster's held-out clips."""


class EvaluateDone(Struct, frozen=True, kw_only=True, tag="evaluate", forbid_unknown_fields=True):
    reports: list[DeltaReport]
    flops: float


class PairDistance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of two deltas, by their places in the job; None when one of them can't be used."""

    first: int
    second: int
    distance: float | None
    """L2 norm of the difference as a share of the larger norm: 0 for equal deltas, about 1.4 for unrelated ones."""
    cosine: float | None


class CompareDone(Struct, frozen=True, kw_only=True, tag="compare", forbid_unknown_fields=True):
    distances: list[PairDistance]


class MergeDone(Struct, frozen=True, kw_only=True, tag="merge", forbid_unknown_fields=True):
    checkpoint_path: str
    momentum_path: str | None
    step_path: str
    """A delta file: base and this give the checkpoint, byte for byte."""
    loss: PairedLoss
    flops: float
    restarted: bool = False
    """As in a MergeOutcome."""


class RebuildDone(Struct, frozen=True, kw_only=True, tag="rebuild", forbid_unknown_fields=True):
    checkpoint_path: str


class RouteDone(Struct, frozen=True, kw_only=True, tag="route", forbid_unknown_fields=True):
    router_path: str
    accuracy_by_t: list[tuple[float, float]]
    """(t, share of held-out clips whose cluster has the highest probability)."""
    calibration_error: float
    share_by_cluster: list[float]
    flops: float


class ReleaseDone(Struct, frozen=True, kw_only=True, tag="release", forbid_unknown_fields=True):
    release_dir: str
    files: list[str]
    """Relative paths of every file of the release."""
    sample_paths: list[str]
    share_by_expert: list[float]
    """How often each expert was picked over the samples' denoising steps."""
    chosen: list[Candidate]
    """One of every cluster, in their order."""
    held_back: list[str]
    """Why a newer version is not in it, in sentences."""


class GenerateDone(Struct, frozen=True, kw_only=True, tag="generate", forbid_unknown_fields=True):
    clip_path: str
    expert_by_step: list[int]
    """The most weighted expert of every denoising step."""
    guidance: float
    top_k: int


class SampleDone(Struct, frozen=True, kw_only=True, tag="sample", forbid_unknown_fields=True):
    clip_path: str
    caption: str


class SelfTestDone(Struct, frozen=True, kw_only=True, tag="self_test", forbid_unknown_fields=True):
    ok: bool
    sentence: str
    seconds_per_step: float
    device_name: str
    memory_bytes: int
    micro_batch: int = 0
    """The fastest that fits; 0 when nothing fits."""
    checkpoint_activations: bool = False
    peak_bytes: int = 0
    """Of GPU memory at that micro-batch; 0 on a processor."""
    modes: list[ModeSpec] = []
    """Of the model's, those that fit, best first; the first is what was measured."""
    fits: bool = True
    """False where the machine computes rightly but none of the model's modes fits its memory."""


Done = (
    TrainDone
    | EvaluateDone
    | CompareDone
    | MergeDone
    | RebuildDone
    | RouteDone
    | ReleaseDone
    | GenerateDone
    | SampleDone
    | SelfTestDone
)


class JobProgress(Struct, frozen=True, kw_only=True, tag="progress", tag_field="event"):
    job_id: str
    step: int
    total: int
    loss: float | None
    what: str
    saved_step: int = 0
    """Step of the newest resume point; 0 when there is none yet."""
    save_every_s: float = 0.0
    """Seconds between resume points, as the budget of disk writes allows; 0 when not known."""
    save_problem: str = ""
    """Why the last resume point could not be written; training goes on."""
    expert: int | None = None
    """The most weighted expert of a denoising step."""


class JobDone(Struct, frozen=True, kw_only=True, tag="done", tag_field="event"):
    job_id: str
    done: Done


class JobFailed(Struct, frozen=True, kw_only=True, tag="failed", tag_field="event"):
    job_id: str
    code: str
    sentence: str
    out_of_memory: bool = False


class WorkerReady(Struct, frozen=True, kw_only=True, tag="ready", tag_field="event"):
    pid: int
    devices: list[str]
    confined: list[str] = []
    """What became of the limits that it was started with, in words."""


Event = JobProgress | JobDone | JobFailed | WorkerReady
