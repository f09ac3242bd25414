"""A release with experts for data that it was not made for. Owns the order: new experts, the grown router, the folder.

Old experts stay as they are. Each new one starts from the old expert that the router picks most for the new clips, and
takes over what that one was trained on; the router keeps its weights, gets a larger head and trains for a while on all
clusters (arXiv 2603.06741 trains a new one from nothing). Interrupted, the same call goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from msgspec import Struct, structs

from kinoswarm_model import release_job, route_job, segment
from kinoswarm_model.checkpoints import read_checkpoint
from kinoswarm_model.derived_release import (
    OnProgress,
    fingerprint,
    open_work,
    part_of,
    prompts_of,
    publish,
    reports_to,
    text_encoder_of,
)
from kinoswarm_model.devices import named_device
from kinoswarm_model.experts import build_expert, tensor_shapes
from kinoswarm_model.jobs import Candidate, JobProgress, PairedLoss, ReleaseJob, RouteJob, TrainJob
from kinoswarm_model.paired_loss import Triples, losses_of_weights, paired
from kinoswarm_model.prepared_data import PreparedData
from kinoswarm_model.release_layout import (
    ROUTER_WEIGHTS,
    VAE,
    ReleaseInfo,
    expert_weights,
    read_info,
)
from kinoswarm_model.release_reader import read_router
from kinoswarm_model.router import Router
from kinoswarm_model.router_figures import RouterFigures, measured_router
from kinoswarm_model.training_data import ClipSet
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.specs import Objective

_PAIRS = 256
_ROUTER_SHARE = 4
"""The grown router trains for this part of the steps of one from nothing (docs/lab-notes.md)."""


@dataclass(frozen=True, kw_only=True)
class GrowRequest:
    """What to grow, and by what."""

    release: Path
    data: Path
    """The clusters that the release was made for, in its order."""
    new_data: Path
    """One or more further clusters; each becomes an expert."""
    out: Path
    expert_steps: int
    """Optimizer steps of each new expert."""
    router_steps: int | None = None
    """None: a quarter of the recipe's."""
    seed: int = 0
    licence: str | None = None
    """Of the grown release; None: the old one's, which then must cover the new data too."""
    device: str = "cpu"
    threads: int = 1


class NewExpert(Struct, frozen=True, kw_only=True):
    """One that was added."""

    label: str
    started_from: str
    objective: Objective
    """That of the one it started from."""
    loss: PairedLoss
    """On the new cluster's held-out clips: the expert it started from, and the new one."""


class Grown(Struct, frozen=True, kw_only=True):
    """What came out."""

    release_dir: str
    experts: list[NewExpert]
    router_steps: int
    old_router: RouterFigures
    """Before, on the old clusters' held-out clips."""
    router: RouterFigures
    """After, on all held-out clips."""


def grow(request: GrowRequest, on_progress: OnProgress) -> Grown:
    """Write the grown release to `out`. Raises LocalError for folders that don't fit, and what the jobs raise."""
    info = read_info(request.release)
    old = PreparedData.for_model(request.data, info.model)
    new = PreparedData.for_model(request.new_data, info.model)
    if len(old) != len(info.experts):
        raise LocalError(
            f"{request.data} has {len(old)} clusters, the release {len(info.experts)} experts; name the data that it "
            "was made from"
        )
    settings = replace(request, out=Path(), device="", threads=0)
    work = open_work(
        request.out, fingerprint(settings, request.release, [request.data, request.new_data])
    )
    growing = _Growing(request, info, old, new, work)
    grown = growing.run(on_progress)
    publish(work, request.out)
    return structs.replace(grown, release_dir=str(request.out))


@dataclass(frozen=True)
class _Growing:
    request: GrowRequest
    info: ReleaseInfo
    old: PreparedData
    new: PreparedData
    work: Path
    """Holds what an interrupted call goes on with."""

    def run(self, on_progress: OnProgress) -> Grown:
        request, info = self.request, self.info
        router = read_router(request.release / ROUTER_WEIGHTS, info)
        device = named_device(request.device)
        heldout = ClipSet.read_clusters([[path] for path in self.old.heldout], info.model)
        before = measured_router(router, heldout, request.seed, device)

        report = reports_to(on_progress)
        checkpoints, experts = [], []
        for cluster in range(len(self.new)):
            path, expert = self._expert(cluster, self._nearest(router, cluster), report)
            checkpoints.append(path)
            experts.append(expert)
        job = self._route_job()
        routed = route_job.run(job, report)
        release_job.run(self._release_job(checkpoints, experts, routed.router_path), report)
        return Grown(
            release_dir="",
            experts=experts,
            router_steps=job.steps,
            old_router=before,
            router=RouterFigures(
                accuracy_by_t=routed.accuracy_by_t,
                calibration_error=routed.calibration_error,
                share_by_cluster=routed.share_by_cluster,
            ),
        )

    def _nearest(self, router: Router, cluster: int) -> int:
        """The old expert that the router picks most often for a new cluster's held-out clips."""
        clips = ClipSet.read([self.new.heldout[cluster]], self.info.model)
        device = torch.device(self.request.device)
        return measured_router(router, clips, self.request.seed, device).most_picked

    def _expert(
        self, cluster: int, nearest: int, report: Callable[[JobProgress], None]
    ) -> tuple[Path, NewExpert]:
        """Train one; its checkpoint, and what it gained over the expert that it started from."""
        request, info = self.request, self.info
        objective = info.experts[nearest].objective
        start = request.release / expert_weights(nearest)
        what = f"new-{cluster}"
        job = TrainJob(
            job_id=what,
            model=info.model,
            work_dir=str(part_of(self.work, what)),
            device=request.device,
            threads=request.threads,
            shard_paths=self.new.shards_by_cluster[cluster],
            steps=request.expert_steps,
            batch_size=info.model.recipe.batch_size,
            seed=request.seed + cluster,
            objective=objective,
            pretrained_dir=str(start.parent),
        )
        path = Path(job.work_dir) / "checkpoint.safetensors"
        if not path.is_file():  # else an interrupted call trained it
            path = Path(segment.run(job, report).output_path)
        clips = ClipSet.read([self.new.heldout[cluster]], info.model)
        triples = Triples(clips, _PAIRS, request.seed)
        expert, shapes = build_expert(info.model, seed=0), tensor_shapes(info.model)
        base, candidate = (
            losses_of_weights(
                expert,
                read_checkpoint(place, shapes),
                triples,
                torch.device(request.device),
                info.model,
                objective,
            )
            for place in (start, path)
        )
        return path, NewExpert(
            label=self.new.labels[cluster],
            started_from=info.experts[nearest].label,
            objective=objective,
            loss=paired(base, candidate),
        )

    def _route_job(self) -> RouteJob:
        request, model = self.request, self.info.model
        return RouteJob(
            job_id="router",
            model=model,
            work_dir=str(part_of(self.work, "router")),
            device=request.device,
            threads=request.threads,
            shard_paths_by_cluster=[*self.old.shards_by_cluster, *self.new.shards_by_cluster],
            heldout_paths=[*self.old.heldout, *self.new.heldout],
            steps=request.router_steps or max(1, model.router.steps // _ROUTER_SHARE),
            seed=request.seed,
            base_path=str(request.release / ROUTER_WEIGHTS),
            base_clusters=len(self.info.experts),
        )

    def _release_job(
        self, checkpoints: list[Path], new: list[NewExpert], router_path: str
    ) -> ReleaseJob:
        request, info = self.request, self.info
        kept = [
            Candidate(
                cluster=index,
                version=expert.version,
                path=str(request.release / expert_weights(index)),
            )
            for index, expert in enumerate(info.experts)
        ]
        added = [
            Candidate(cluster=len(kept) + index, version=0, path=str(path))
            for index, path in enumerate(checkpoints)
        ]
        heldout = [*self.old.heldout, *self.new.heldout]
        return ReleaseJob(
            job_id="release",
            model=info.model,
            work_dir=str(self.work),
            device=request.device,
            threads=request.threads,
            swarm_name=info.swarm_name,
            version=info.version + 1,
            experts=[*kept, *added],
            heldout_paths=heldout,
            cluster_labels=[*(expert.label for expert in info.experts), *self.new.labels],
            objectives=[
                *(expert.objective for expert in info.experts),
                *(expert.objective for expert in new),
            ],
            router_path=router_path,
            text_encoder_dir=text_encoder_of(request.release, self.work),
            prompts=prompts_of(heldout),
            seed=request.seed,
            licence=request.licence or info.licence,
            vae_dir=str(request.release / VAE) if info.model.vae is not None else None,
        )
