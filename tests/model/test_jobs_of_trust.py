"""Evaluate, merge, route and self-test jobs on tiny files: honest reports, order independence, measured routers."""

from pathlib import Path

import msgspec
import pytest
import torch
from model.samples import tiny_model, write_tiny_shard

from kinoswarm_model import (
    evaluate_job,
    merge_job,
    route_job,
    router_figures,
    segment,
    self_test_job,
)
from kinoswarm_model.checkpoints import read_checkpoint, write_checkpoint
from kinoswarm_model.delta import read_delta, write_delta
from kinoswarm_model.experts import build_expert, tensor_shapes
from kinoswarm_model.jobs import (
    EvaluateJob,
    JobProgress,
    MergeDelta,
    MergeJob,
    RouteJob,
    SelfTestJob,
    TrainJob,
)
from kinoswarm_model.paired_loss import Triples, paired
from kinoswarm_model.training_data import ClipSet
from kinoswarm_protocol.errors import Code, LocalError

MODEL = tiny_model()


def ignore(progress: JobProgress) -> None:
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, two good deltas, a harmful one and three broken ones."""
    folder = tmp_path_factory.mktemp("trained")
    shard = write_tiny_shard(folder / "shard.safetensors")
    write_tiny_shard(folder / "heldout.safetensors", count=12, seed=1)
    base = build_expert(MODEL, seed=1).network.state_dict()
    write_checkpoint(folder / "base.safetensors", base)
    for seed in (1, 2):
        job = TrainJob(
            job_id="t",
            model=MODEL,
            work_dir=str(folder / f"work-{seed}"),
            shard_paths=[shard],
            steps=25,
            batch_size=8,
            seed=seed,
            base_path=str(folder / "base.safetensors"),
        )
        Path(segment.run(job, ignore).output_path).rename(folder / f"good-{seed}.zst")
    noise = {name: tensor + torch.randn_like(tensor) for name, tensor in base.items()}
    write_delta(folder / "harmful.zst", base, noise)
    other = {"w": torch.zeros(3)}
    write_delta(folder / "foreign.zst", other, {"w": torch.ones(3)})
    (folder / "garbage.zst").write_bytes(b"not a delta")
    huge = {name: tensor + 1e38 for name, tensor in base.items()}
    write_delta(folder / "huge.zst", base, huge)
    return folder


def evaluate(folder: Path, names: list[str], seed: int = 5) -> EvaluateJob:
    return EvaluateJob(
        job_id="e",
        model=MODEL,
        work_dir=str(folder / "evaluate"),
        base_path=str(folder / "base.safetensors"),
        delta_paths=[str(folder / name) for name in names],
        heldout_path=str(folder / "heldout.safetensors"),
        pairs=32,
        seed=seed,
    )


def merge_of(folder: Path, names: list[str], work: str) -> MergeJob:
    return MergeJob(
        job_id="m",
        model=MODEL,
        work_dir=str(folder / work),
        base_path=str(folder / "base.safetensors"),
        deltas=[MergeDelta(path=str(folder / name), weight=8.0, key=name) for name in names],
        outer_rate=0.7,
        outer_momentum=0.9,
        momentum_path=None,
        norm_clip=3.0,
        heldout_path=str(folder / "heldout.safetensors"),
        pairs=32,
        seed=5,
    )


def test_every_delta_gets_its_own_report(trained: Path) -> None:
    names = ["good-1.zst", "harmful.zst", "foreign.zst", "garbage.zst", "huge.zst", "good-2.zst"]
    reports = evaluate_job.run(evaluate(trained, names), ignore).reports
    good, harmful, foreign, garbage, huge, good_2 = reports
    for report in (good, good_2):
        assert report.code == Code.ACCEPTED
        assert report.problem == ""
        assert report.loss is not None
        assert report.loss.difference < -2 * report.loss.standard_error
        assert report.norm > 0
    assert harmful.loss is not None
    assert harmful.loss.difference > 0
    assert (foreign.code, foreign.loss) == (Code.BAD_TENSORS, None)
    assert (garbage.code, garbage.loss) == (Code.MALFORMED, None)
    assert (huge.code, huge.loss) == (Code.NOT_FINITE, None)
    assert all(report.problem for report in (foreign, garbage, huge))


def test_evaluating_twice_gives_the_same_numbers_and_another_seed_others(trained: Path) -> None:
    first = evaluate_job.run(evaluate(trained, ["good-1.zst"]), ignore)
    assert evaluate_job.run(evaluate(trained, ["good-1.zst"]), ignore) == first
    assert evaluate_job.run(evaluate(trained, ["good-1.zst"], seed=6), ignore) != first


def test_missing_file_is_this_machines_fault_not_the_contributions(trained: Path) -> None:
    with pytest.raises(LocalError, match="can't read delta"):
        evaluate_job.run(evaluate(trained, ["absent.zst"]), ignore)


def test_triples_are_a_function_of_seed_and_number(trained: Path) -> None:
    clips = ClipSet.read([str(trained / "heldout.safetensors")], MODEL)
    long = torch.cat([batch.t_B for batch in Triples(clips, 40, 3).batches()])
    short = torch.cat([batch.t_B for batch in Triples(clips, 7, 3).batches()])
    assert torch.equal(long[:7], short)
    assert len(long) == 40


def test_paired_difference_has_its_standard_error() -> None:
    base = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    loss = paired(base, base + torch.tensor([0.0, 2.0, 0.0, 2.0]))
    assert loss.difference == 1.0
    assert loss.standard_error == pytest.approx((4 / 3) ** 0.5 / 2)
    assert paired(base[:1], base[:1]).standard_error == 0.0


def test_merge_improves_on_the_base_whatever_the_order(trained: Path) -> None:
    names = ["good-1.zst", "good-2.zst"]
    first = merge_job.run(merge_of(trained, names, "m1"), ignore)
    second = merge_job.run(merge_of(trained, names[::-1], "m2"), ignore)
    assert first.loss.difference < -2 * first.loss.standard_error
    assert Path(first.checkpoint_path).read_bytes() == Path(second.checkpoint_path).read_bytes()
    assert first.momentum_path is not None
    assert read_checkpoint(Path(first.momentum_path), tensor_shapes(MODEL))
    again = msgspec.structs.replace(
        merge_of(trained, names, "m3"), momentum_path=first.momentum_path
    )
    third = merge_job.run(again, ignore)
    assert Path(third.checkpoint_path).read_bytes() != Path(first.checkpoint_path).read_bytes()


def test_merge_of_one_is_the_base_plus_its_delta(trained: Path) -> None:
    done = merge_job.run(merge_of(trained, ["good-1.zst"], "m4"), ignore)
    report = evaluate_job.run(evaluate(trained, ["good-1.zst"]), ignore).reports[0]
    assert done.momentum_path is None
    assert report.loss is not None
    assert done.loss.candidate == pytest.approx(report.loss.candidate, rel=1e-5)


def momentum_of(folder: Path, delta: str, factor: float) -> str:
    """A momentum file: so many times this delta."""
    shapes = tensor_shapes(MODEL)
    read = read_delta(folder / delta, shapes)
    path = folder / f"momentum-{delta}-{factor}"
    write_checkpoint(path, {name: factor * read.tensor(name) for name in shapes})
    return str(path)


def test_momentum_that_overshoots_is_let_go_and_the_mean_of_the_work_stands(trained: Path) -> None:
    names = ["good-1.zst", "good-2.zst"]
    overshooting = momentum_of(trained, "good-1.zst", -40.0)
    job = msgspec.structs.replace(merge_of(trained, names, "m5"), momentum_path=overshooting)
    done = merge_job.run(job, ignore)
    plain = msgspec.structs.replace(
        merge_of(trained, names, "m6"), outer_rate=1.0, outer_momentum=0.0
    )
    mean = merge_job.run(plain, ignore)
    assert (done.restarted, mean.restarted) == (True, False)
    assert done.loss == mean.loss
    assert done.loss.difference < -2 * done.loss.standard_error
    assert Path(done.checkpoint_path).read_bytes() == Path(mean.checkpoint_path).read_bytes()
    assert Path(done.step_path).read_bytes() == Path(mean.step_path).read_bytes()
    assert done.momentum_path is not None
    assert mean.momentum_path is not None
    assert Path(done.momentum_path).read_bytes() == Path(mean.momentum_path).read_bytes()
    assert done.flops == pytest.approx(1.5 * mean.flops)


def test_momentum_that_helps_is_kept(trained: Path) -> None:
    names = ["good-1.zst", "good-2.zst"]
    helping = momentum_of(trained, "good-1.zst", 0.5)
    job = msgspec.structs.replace(merge_of(trained, names, "m7"), momentum_path=helping)
    done = merge_job.run(job, ignore)
    assert not done.restarted
    assert done.loss.difference < -2 * done.loss.standard_error
    without = merge_job.run(merge_of(trained, names, "m8"), ignore)
    assert Path(done.checkpoint_path).read_bytes() != Path(without.checkpoint_path).read_bytes()
    assert done.flops == without.flops


def test_stale_work_that_helps_is_taken_whole(trained: Path) -> None:
    names = ["good-1.zst", "good-2.zst"]
    stale = msgspec.structs.replace(merge_of(trained, names, "m10"), freshness=0.5)
    fresh = merge_job.run(merge_of(trained, names, "m11"), ignore)
    done = merge_job.run(stale, ignore)
    assert not done.restarted
    assert Path(done.checkpoint_path).read_bytes() == Path(fresh.checkpoint_path).read_bytes()


def test_harmful_work_stays_harmful_without_momentum(trained: Path) -> None:
    done = merge_job.run(merge_of(trained, ["harmful.zst", "harmful.zst"], "m9"), ignore)
    assert done.loss.difference > 2 * done.loss.standard_error


def route(folder: Path, steps: int = 60) -> RouteJob:
    dark = write_tiny_shard(folder / "dark.safetensors", count=16, seed=1, brightness=0)
    bright = write_tiny_shard(folder / "bright.safetensors", count=16, seed=2, brightness=190)
    return RouteJob(
        job_id="r",
        model=MODEL,
        work_dir=str(folder / "route"),
        shard_paths_by_cluster=[[dark], [bright]],
        heldout_paths=[dark, bright],
        steps=steps,
        seed=3,
        resume_every_s=0.0,
    )


def test_router_learns_to_tell_clusters_apart(tmp_path: Path) -> None:
    done = route_job.run(route(tmp_path), ignore)
    accuracy = dict(done.accuracy_by_t)
    assert sorted(accuracy) == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert accuracy[0.3] > 0.9
    assert sum(done.share_by_cluster) == pytest.approx(1.0)
    assert 0 <= done.calibration_error <= 1
    assert Path(done.router_path).exists()


def test_killed_router_training_continues_to_the_same_bytes(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(progress: JobProgress) -> None:
        if progress.step == 3:
            raise Killed

    whole = route_job.run(route(tmp_path, steps=6), ignore)
    expected = Path(whole.router_path).read_bytes()
    job = msgspec.structs.replace(route(tmp_path, steps=6), work_dir=str(tmp_path / "killed"))
    with pytest.raises(Killed):
        route_job.run(job, kill)
    done = route_job.run(job, ignore)
    assert Path(done.router_path).read_bytes() == expected


def test_router_needs_one_held_out_file_per_cluster(tmp_path: Path) -> None:
    job = route(tmp_path)
    with pytest.raises(LocalError, match="one each"):
        route_job.run(msgspec.structs.replace(job, heldout_paths=job.heldout_paths[:1]), ignore)


def test_calibration_error_of_a_known_case() -> None:
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.35, 0.65]])
    right_once_wrong_once = torch.tensor([0, 1, 1, 0])
    error = router_figures.calibration_error(p, right_once_wrong_once)
    assert error == pytest.approx((0.4 + 0.15) / 2, abs=1e-6)


def test_healthy_machine_passes_its_self_test(tmp_path: Path) -> None:
    job = SelfTestJob(job_id="s", model=MODEL, work_dir=str(tmp_path), batch_size=4, seed=0)
    done = self_test_job.run(job, ignore)
    assert done.ok, done.sentence
    assert done.seconds_per_step > 0
    assert done.memory_bytes > 2**28


def test_wrong_arithmetic_is_named_in_the_self_test() -> None:
    wrong = [loss * 1.01 for loss in self_test_job.KNOWN_LOSSES]
    assert "memory or driver is faulty" in self_test_job.compare(wrong, 1e-3)
    assert self_test_job.compare([float("nan")] * len(wrong), 1e-3)


@pytest.mark.parametrize(
    ("seconds_by_size", "expected"),
    [
        ({8: 1.0, 4: 1.1}, 8),
        ({8: 1.0, 4: 0.95}, 8),
        ({8: 1.0, 4: 0.8, 2: 0.6, 1: 0.7}, 2),
        ({4: 1.0, 2: 1.0}, 4),
        ({1: 9.0}, 1),
    ],
)
def test_the_fastest_micro_batch_that_fits_is_chosen(
    seconds_by_size: dict[int, float], expected: int
) -> None:
    """What is not listed runs out of memory."""

    def measure(fit: self_test_job.Fit) -> self_test_job.Measured | None:
        seconds = None if fit.checkpoint_activations else seconds_by_size.get(fit.micro_batch)
        return None if seconds is None else self_test_job.Measured(fit, seconds, 0)

    best = self_test_job.best_fit(measure, 8)
    assert best is not None
    assert best.fit == self_test_job.Fit(expected)


def test_checkpointing_is_the_last_resort_and_then_it_does_not_fit() -> None:
    tried: list[self_test_job.Fit] = []

    def measure(fit: self_test_job.Fit) -> self_test_job.Measured | None:
        tried.append(fit)
        return None

    assert self_test_job.best_fit(measure, 4) is None
    assert tried == [(4, False), (2, False), (1, False), (1, True)]


def test_a_model_that_does_not_fit_is_said_with_what_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*arguments: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(self_test_job, "seconds_per_step", out_of_memory)
    job = SelfTestJob(job_id="s", model=MODEL, work_dir=str(tmp_path), batch_size=4, seed=0)
    done = self_test_job.run(job, ignore)
    assert not done.ok
    assert "does not fit" in done.sentence
    assert "would do" in done.sentence
