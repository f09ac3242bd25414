"""A release's experts and router as one dense model. Owns the student's training and what is measured of it.

The student learns the routed mixture's own velocity, whatever its experts were trained on, on noised training clips,
with and without text, so that guidance works on it (arXiv 2501.05450, section 3.4). It has the shape of one expert and
starts from the one that is picked most. What comes out is a release with one expert: the same commands and pipeline
read it.
Shapes: B batch, C channels, T frames, H height, W width, K clusters.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from msgspec import Struct
from torch import Tensor

from kinoswarm_model import release_job
from kinoswarm_model.checkpoints import read_checkpoint, weights_of, write_checkpoint
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
from kinoswarm_model.experts import Expert, build_expert, tensor_shapes
from kinoswarm_model.flops import TRAIN_FACTOR, expert_flops, router_flops
from kinoswarm_model.flow import losses_of, velocity_of
from kinoswarm_model.job_loop import LoopPlan, forget_resume_points, train_to_end
from kinoswarm_model.jobs import Candidate, JobProgress, ReleaseJob
from kinoswarm_model.noise import Purpose
from kinoswarm_model.paired_loss import Triples
from kinoswarm_model.prepared_data import PreparedData
from kinoswarm_model.release_layout import VAE, expert_weights
from kinoswarm_model.release_reader import Release, open_release
from kinoswarm_model.resume_points import SavePolicy
from kinoswarm_model.router import build_router
from kinoswarm_model.router_figures import measured_router
from kinoswarm_model.sampler import SampleSettings, TextBatch, mixed_velocity, route, settings_of
from kinoswarm_model.segment import optimizer_settings
from kinoswarm_model.training import Trainer
from kinoswarm_model.training_data import Batch, BatchPlan, ClipSet, Drawing
from kinoswarm_protocol.errors import LocalError

_PAIRS_BY_CLUSTER = 64
_RESUME_EVERY_S = 300.0


@dataclass(frozen=True, kw_only=True)
class DistillRequest:
    """What to distil, and for how long."""

    release: Path
    data: Path
    """Prepared clips to learn on; the release's own are best."""
    out: Path
    steps: int
    batch_size: int | None = None
    """None: the recipe's."""
    top_k: int | None = None
    """Experts that the teacher mixes; None: the recipe's."""
    seed: int = 0
    device: str = "cpu"
    threads: int = 1


class HeldOut(Struct, frozen=True, kw_only=True):
    """Means over equal (clip, noise, t) of all clusters' held-out clips."""

    loss: float
    """Against the clips, as experts are trained."""
    imitation: float
    """Against what the experts and the router make of them."""


class Distilled(Struct, frozen=True, kw_only=True):
    """What came out."""

    release_dir: str
    started_from: str
    teacher_loss: float
    """Of the experts and the router together, as `loss` of the others."""
    start: HeldOut
    """The expert that the student started from."""
    student: HeldOut
    training_flops: float
    """The teacher's passes included."""


def distill(request: DistillRequest, on_progress: OnProgress) -> Distilled:
    """Write the distilled release to `out`. Raises LocalError for folders that don't fit, and what opening and writing
    a release raise; NotFinite when the loss is.
    """
    settings = replace(request, out=Path(), device="", threads=0)
    mark = fingerprint(settings, request.release, [request.data])
    work = open_work(request.out, mark)
    release = open_release(request.release)
    if len(release.info.experts) == 1:
        raise LocalError(f"{request.release} has one expert: it is one dense model already")
    release.move(named_device(request.device))
    data = PreparedData.for_model(request.data, release.info.model)
    return _Distilling(request, release, data, work, mark).run(on_progress)


@dataclass(frozen=True)
class _Distilling:
    request: DistillRequest
    release: Release
    data: PreparedData
    work: Path
    mark: str

    def run(self, on_progress: OnProgress) -> Distilled:
        report = reports_to(on_progress)
        model, device = self.release.info.model, torch.device(self.request.device)
        place = self._most_picked()
        student = build_expert(model, seed=self.request.seed)
        start = read_checkpoint(self.request.release / expert_weights(place), tensor_shapes(model))
        student.network.load_state_dict(start)
        before, teacher_loss = self._measured(student.to(device).eval())
        if self._checkpoint.is_file():  # an interrupted call trained it
            student.network.load_state_dict(read_checkpoint(self._checkpoint, tensor_shapes(model)))
        else:
            self._train(student, report)
        after, _ = self._measured(student.eval())
        self._write(student, report)
        publish(self.work, self.request.out)
        return Distilled(
            release_dir=str(self.request.out),
            started_from=self.release.info.experts[place].label,
            teacher_loss=teacher_loss,
            start=before,
            student=after,
            training_flops=self._flops(),
        )

    @property
    def batch_size(self) -> int:
        return self.request.batch_size or self.release.info.model.recipe.batch_size

    @property
    def mixing(self) -> SampleSettings:
        """How the teacher mixes its experts; guidance stays for whoever samples from the student."""
        own = settings_of(self.release.info.model.recipe)
        return replace(own, guidance=1.0, top_k=self.request.top_k or own.top_k)

    def _train(self, student: Expert, report: Callable[[JobProgress], None]) -> None:
        request, recipe = self.request, self.release.info.model.recipe
        shards = [path for paths in self.data.shards_by_cluster for path in paths]
        clips = ClipSet.read(shards, self.release.info.model)
        drawing = Drawing(purpose=Purpose.TRAIN, text_dropout=recipe.text_dropout)
        plan = LoopPlan(
            job_id="distill",
            work_dir=part_of(self.work, "student"),
            job_sha256=self.mark,
            what="distilling",
            steps=request.steps,
            batches=BatchPlan(seed=request.seed, batch_size=self.batch_size, drawing=drawing),
            saving=SavePolicy(least_s=_RESUME_EVERY_S),
            steps_per_progress=max(1, request.steps // 50),
        )
        trainer = Trainer(
            student,
            lambda batch: self._imitation(student, batch),
            optimizer_settings(recipe, request.steps),
            torch.device(request.device),
        )
        train_to_end(plan, trainer, clips, report)
        write_checkpoint(self._checkpoint, weights_of(student.network))
        forget_resume_points(plan)

    @property
    def _checkpoint(self) -> Path:
        return self.work / "student.safetensors"

    def _imitation(self, student: Expert, batch: Batch) -> Tensor:
        """The recipe's loss with the teacher's own clip and noise as the truth, shape (B,)."""
        x_t, t_B = batch.x_t_BCTHW, batch.t_B
        v_BCTHW, t_B1111 = self._teacher(batch), t_B.view(-1, 1, 1, 1, 1)
        clean, noise = x_t - t_B1111 * v_BCTHW, x_t + (1.0 - t_B1111) * v_BCTHW
        prediction = student(x_t, t_B, batch.text_tokens_BLD, batch.text_mask_BL)
        return losses_of(prediction, clean, noise, t_B, self.release.info.model.recipe)

    @torch.no_grad()
    def _teacher(self, batch: Batch) -> Tensor:
        """The routed mixture's velocity, without guidance."""
        routed, settings = self.release.routed(), self.mixing
        text = TextBatch(
            tokens_BLD=batch.text_tokens_BLD,
            mask_BL=batch.text_mask_BL,
            pooled_BD=batch.text_pooled_BD,
        )
        x_t, t_B = batch.x_t_BCTHW, batch.t_B
        weights_BK = route(routed, x_t, t_B, text.pooled_BD, settings)
        return mixed_velocity(routed, x_t, t_B, text, weights_BK, settings.guidance)

    @torch.no_grad()
    def _measured(self, student: Expert) -> tuple[HeldOut, float]:
        """The student on held-out clips, and the teacher's loss there."""
        model, device = self.release.info.model, torch.device(self.request.device)
        clips = ClipSet.read(self.data.heldout, model)
        pairs = min(len(clips), _PAIRS_BY_CLUSTER * len(self.data))
        sums = torch.zeros(3, dtype=torch.float64)
        triples = Triples(clips, pairs, self.request.seed)
        for whole in triples.batches():
            batch = whole.part(0, len(whole), device)
            x_t, t_B = batch.x_t_BCTHW, batch.t_B
            prediction = student(x_t, t_B, batch.text_tokens_BLD, batch.text_mask_BL)
            truth = batch.eps_BCTHW - batch.x_0_BCTHW
            v_student = velocity_of(prediction, x_t, t_B, model.recipe)
            v_teacher = self._teacher(batch)
            gaps = (v_student - truth, v_student - v_teacher, v_teacher - truth)
            sums += torch.stack(
                [gap.double().square().flatten(1).mean(1).sum().cpu() for gap in gaps]
            )
        loss, imitation, teacher = (float(value) / pairs for value in sums)
        return HeldOut(loss=loss, imitation=imitation), teacher

    def _most_picked(self) -> int:
        clips = ClipSet.read(self.data.heldout, self.release.info.model)
        device = torch.device(self.request.device)
        return measured_router(self.release.router, clips, self.request.seed, device).most_picked

    def _flops(self) -> float:
        model, experts = self.release.info.model, len(self.release.info.experts)
        passes = TRAIN_FACTOR + min(self.mixing.top_k, experts)
        per_clip = passes * expert_flops(model) + router_flops(model, experts)
        return self.request.steps * self.batch_size * per_clip

    def _write(self, student: Expert, report: Callable[[JobProgress], None]) -> None:
        request, info = self.request, self.release.info
        router = part_of(self.work, "router") / "router.safetensors"
        write_checkpoint(router, weights_of(build_router(info.model, 1, seed=request.seed)))
        job = ReleaseJob(
            job_id="release",
            model=info.model,
            work_dir=str(self.work),
            device=request.device,
            threads=request.threads,
            swarm_name=info.swarm_name,
            version=info.version,
            experts=[Candidate(cluster=0, version=0, path=str(self._checkpoint))],
            cluster_labels=[f"distilled from {len(info.experts)} experts"],
            router_path=str(router),
            text_encoder_dir=text_encoder_of(request.release, self.work),
            prompts=prompts_of(self.data.heldout),
            seed=request.seed,
            licence=info.licence,
            vae_dir=str(request.release / VAE) if info.model.vae is not None else None,
            expert_flops=self._flops(),
        )
        release_job.run(job, report)
