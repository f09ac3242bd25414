"""Experts trained on the noise beside ones on the velocity: what is measured, and that every job measures it."""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
import torch
from model.samples import text_batch, tiny_model, write_tiny_shard
from torch import Tensor

from kinoswarm_model import canary, evaluate_job, flow, merge_job, segment
from kinoswarm_model.checkpoints import read_checkpoint, write_checkpoint
from kinoswarm_model.experts import Expert, build_expert, tensor_shapes
from kinoswarm_model.jobs import (
    Candidate,
    EvaluateJob,
    JobProgress,
    MergeDelta,
    MergeJob,
    ReleaseJob,
    TrainJob,
)
from kinoswarm_model.paired_loss import Triples
from kinoswarm_model.sampler import RoutedModel, sample, settings_of
from kinoswarm_model.training_data import Batch, ClipSet, training_batch
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.specs import Objective, RecipeSpec

MODEL = tiny_model()
CLEAN = msgspec.structs.replace(MODEL.recipe, t_floor=0.1)
VELOCITY = msgspec.structs.replace(MODEL.recipe, prediction="velocity")
FIRM = 1.0 - flow.LEAST_SIGNAL
"""The noise error is counted as it is up to this t."""
PAIRS, SEED = 24, 5


def ignore(progress: JobProgress) -> None:
    pass


def noise_of(output: Tensor, x_t: Tensor, t: Tensor, recipe: RecipeSpec) -> Tensor:
    """eps_hat = x_t + (1 - t) v_hat, which is x_t = (1 - t) x_0 + t eps solved with v = eps - x_0."""
    return x_t + (1 - t.view(-1, 1, 1, 1, 1)) * flow.velocity_of(output, x_t, t, recipe)


def triple(times: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_0, eps = (torch.randn(len(times), 1, 2, 4, 4, generator=generator) for _ in range(2))
    return x_0, eps, torch.tensor(times)


@pytest.mark.parametrize("recipe", [CLEAN, VELOCITY], ids=["clean", "velocity"])
def test_the_noise_loss_is_the_squared_error_of_the_noise_that_was_mixed_in(
    recipe: RecipeSpec,
) -> None:
    x_0, eps, t = triple([0.15, 0.5, FIRM])
    x_t = flow.noised(x_0, eps, t)
    right = x_0 if recipe.prediction == "clean" else eps - x_0
    output = right + 0.3 * torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1))
    wanted = (noise_of(output, x_t, t, recipe) - eps).square().flatten(1).mean(1)
    found = flow.losses_of(output, x_0, eps, t, recipe, "epsilon")
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(noise_of(right, x_t, t, recipe), eps, rtol=1e-4, atol=1e-4)
    assert float(flow.losses_of(right, x_0, eps, t, recipe, "epsilon").max()) < 1e-10


def test_where_sampling_begins_a_wrong_velocity_still_costs() -> None:
    x_0, eps, t = triple([1.0, 0.97])
    right = eps - x_0
    torch.testing.assert_close(noise_of(right + 9.0, eps, t[:1].expand(2), VELOCITY), eps)
    losses = flow.losses_of(right + 1.0, x_0, eps, t, VELOCITY, "epsilon")
    torch.testing.assert_close(losses, torch.full((2,), flow.LEAST_SIGNAL**2))


@dataclass(frozen=True)
class LinearExpert:
    """Puts out a(t) x_t, where a(t) is the best factor by one objective for clips of independent pixels N(0, s^2)."""

    objective: Objective
    clips_BCTHW: Tensor
    eps_BCTHW: Tensor

    def factor(self, t: float) -> float:
        """The lowest point of the loss, which is a parabola in a."""
        low, middle, high = (self._loss(a, t) for a in (-1.0, 0.0, 1.0))
        return (low - high) / (2 * (low + high - 2 * middle))

    def _loss(self, a: float, t: float) -> float:
        t_B = torch.full((len(self.eps_BCTHW),), t)
        x_t = flow.noised(self.clips_BCTHW, self.eps_BCTHW, t_B)
        losses = flow.losses_of(
            a * x_t, self.clips_BCTHW, self.eps_BCTHW, t_B, VELOCITY, self.objective
        )
        return float(losses.double().mean())

    def __call__(self, x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.factor(float(t[0])) * x


def test_the_best_experts_of_both_objectives_are_the_known_one_and_sample_alike() -> None:
    s, model = 0.5, msgspec.structs.replace(MODEL, recipe=VELOCITY)
    generator = torch.Generator().manual_seed(2)
    shape = (64, 3, 4, 16, 16)
    x_0, eps = s * torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    experts = [LinearExpert(objective, x_0, eps) for objective in ("velocity", "epsilon")]
    for t in (0.05, 0.4, 0.9, 1.0):
        known = (t - (1 - t) * s**2) / (t**2 + (1 - t) ** 2 * s**2)
        for expert in experts:
            assert expert.factor(t) == pytest.approx(known, abs=0.02)
    clips = [
        sample(
            RoutedModel(model=model, expert=lambda _, e=expert: e, available_K=[True], router=None),
            text_batch(model, 2),
            [1, 2],
            replace(settings_of(model.recipe), guidance=1.0, steps=100, shift=1.0),
        )
        for expert in experts
    ]
    torch.testing.assert_close(clips[0], clips[1], atol=1e-3, rtol=0)
    assert 0.8 * s < float(clips[1].std()) < 1.2 * s


# --- every job measures the objective of its cluster -------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Files of a small training, and what the losses on them are by the formula alone."""

    folder: Path
    base: str
    shard: str
    heldout: str

    def job(self, objective: Objective, steps: int = 6) -> TrainJob:
        return TrainJob(
            job_id="t",
            model=MODEL,
            work_dir=str(self.folder / f"{objective}-{steps}"),
            shard_paths=[self.shard],
            steps=steps,
            batch_size=8,
            seed=3,
            base_path=self.base,
            objective=objective,
        )

    def mean_loss(self, path: str, objective: Objective) -> float:
        """On the held-out triples of a judgement."""
        expert = build_expert(MODEL, seed=0)
        expert.network.load_state_dict(read_checkpoint(Path(path), tensor_shapes(MODEL)))
        clips = ClipSet.read([self.heldout], MODEL)
        found = [by_formula(expert, b, objective) for b in Triples(clips, PAIRS, SEED).batches()]
        return float(torch.cat(found).mean())


@torch.no_grad()
def by_formula(expert: Expert, batch: Batch, objective: Objective) -> Tensor:
    """The clean-clip recipe's loss written down anew."""
    output = expert(batch.x_t_BCTHW, batch.t_B, batch.text_tokens_BLD, batch.text_mask_BL)
    error = (output - batch.x_0_BCTHW).square().flatten(1).mean(1)
    error = error / batch.t_B.clamp_min(MODEL.recipe.t_floor).square()
    signal = (1 - batch.t_B).clamp_min(flow.LEAST_SIGNAL).square()
    return error * signal if objective == "epsilon" else error


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("objectives")
    write_checkpoint(folder / "base", build_expert(MODEL, seed=1).network.state_dict())
    return Bench(
        folder,
        str(folder / "base"),
        write_tiny_shard(folder / "shard"),
        write_tiny_shard(folder / "heldout", count=12, seed=1),
    )


BOTH: tuple[Objective, ...] = ("velocity", "epsilon")


@pytest.fixture(scope="module")
def deltas(bench: Bench) -> dict[str, str]:
    """What a segment of each objective gives."""
    return {objective: segment.run(bench.job(objective), ignore).output_path for objective in BOTH}


def test_a_segment_lowers_what_its_cluster_is_trained_on(
    bench: Bench, deltas: dict[str, str]
) -> None:
    assert Path(deltas["velocity"]).read_bytes() != Path(deltas["epsilon"]).read_bytes()
    expert, job = build_expert(MODEL, seed=0), bench.job("epsilon", steps=1)
    expert.network.load_state_dict(read_checkpoint(Path(bench.base), tensor_shapes(MODEL)))
    batch = training_batch(ClipSet.read([bench.shard], MODEL), segment.batch_plan(job), 0)
    wanted = float(by_formula(expert, batch, "epsilon").mean())
    assert segment.run(job, ignore).loss_first == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("objective", BOTH)
def test_a_contribution_is_judged_by_what_its_cluster_is_trained_on(
    bench: Bench, deltas: dict[str, str], objective: Objective
) -> None:
    job = EvaluateJob(
        job_id="e",
        model=MODEL,
        work_dir="",
        base_path=bench.base,
        delta_paths=[deltas[objective]],
        heldout_path=bench.heldout,
        pairs=PAIRS,
        seed=SEED,
        objective=objective,
    )
    (report,) = evaluate_job.run(job, ignore).reports
    assert report.loss is not None
    assert report.loss.base == pytest.approx(bench.mean_loss(bench.base, objective), rel=1e-4)
    assert report.loss.difference < -2 * report.loss.standard_error


@pytest.mark.parametrize("objective", BOTH)
def test_a_merge_is_tested_by_what_its_cluster_is_trained_on(
    bench: Bench, deltas: dict[str, str], objective: Objective
) -> None:
    job = MergeJob(
        job_id="m",
        model=MODEL,
        work_dir=str(bench.folder / f"merge-{objective}"),
        base_path=bench.base,
        deltas=[MergeDelta(path=deltas[objective], weight=1.0, key="a")],
        outer_rate=1.0,
        outer_momentum=0.0,
        momentum_path=None,
        norm_clip=0.0,
        heldout_path=bench.heldout,
        pairs=PAIRS,
        seed=SEED,
        objective=objective,
    )
    done = merge_job.run(job, ignore)
    losses = [bench.mean_loss(path, objective) for path in (bench.base, done.checkpoint_path)]
    assert [done.loss.base, done.loss.candidate] == pytest.approx(losses, rel=1e-4)


def quiet(done: int, total: int) -> None:
    pass


def release_job_of(bench: Bench, newest: str, objectives: list[Objective]) -> ReleaseJob:
    return ReleaseJob(
        job_id="r",
        model=MODEL,
        work_dir="",
        swarm_name="s",
        version=1,
        experts=[Candidate(cluster=0, version=2, path=newest)],
        standing=[Candidate(cluster=0, version=1, path=bench.base)],
        heldout_paths=[bench.heldout],
        pairs=PAIRS,
        cluster_labels=["halls"],
        objectives=objectives,
        router_path="",
        text_encoder_dir=None,
        prompts=[],
        seed=SEED,
        licence="none",
    )


def test_a_release_compares_versions_by_what_their_cluster_is_trained_on(bench: Bench) -> None:
    worse = str(bench.folder / "worse")
    weights = read_checkpoint(Path(bench.base), tensor_shapes(MODEL))
    write_checkpoint(Path(worse), {name: 1.3 * tensor for name, tensor in weights.items()})
    for objective in BOTH:
        (choice,) = canary.chosen_experts(release_job_of(bench, worse, [objective]), quiet)
        assert choice.expert.version == 1
        figures = [bench.mean_loss(path, objective) for path in (worse, bench.base)]
        assert f"of {figures[0]:.4f}" in choice.held_back
        assert f"release {figures[1]:.4f}" in choice.held_back


def test_a_release_names_an_objective_for_every_cluster_or_for_none(bench: Bench) -> None:
    job = release_job_of(bench, bench.base, [])
    assert job.objective_of(0) == "velocity"
    with pytest.raises(LocalError, match="2 objectives for 1 clusters"):
        release_job_of(bench, bench.base, ["epsilon", "velocity"]).objective_of(0)


def test_a_resume_point_of_another_objective_is_not_used(bench: Bench) -> None:
    hashes = {segment.job_sha256(bench.job(objective)) for objective in BOTH}
    assert len(hashes) == 2
