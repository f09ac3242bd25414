"""Training: a segment is a function of its seed; micro-batches and kills don't change it; memory fallbacks."""

import dataclasses
import errno
from pathlib import Path

import msgspec
import pytest
import torch
from model.samples import make_shard, tiny_model, write_tiny_shard
from torch import Tensor

from kinoswarm_model import resume_points, segment
from kinoswarm_model.checkpoints import read_checkpoint, write_checkpoint
from kinoswarm_model.delta import read_delta
from kinoswarm_model.experts import build_expert, tensor_shapes
from kinoswarm_model.jobs import JobProgress, TrainDone, TrainJob
from kinoswarm_model.noise import Purpose
from kinoswarm_model.resume_points import SavePolicy
from kinoswarm_model.training import (
    OptimizerSettings,
    OutOfMemory,
    Trainer,
    ends_mean,
    learning_rate,
)
from kinoswarm_model.training_data import (
    Batch,
    BatchPlan,
    ClipSet,
    Drawing,
    order,
    prefetched,
    training_batch,
)
from kinoswarm_protocol.errors import MalformedBytes
from kinoswarm_protocol.specs import DeltaCodec

MODEL = tiny_model()
SHAPES = tensor_shapes(MODEL)


class Killed(BaseException):
    """Stands for the process ending at this very moment."""


@pytest.fixture
def base_job(tmp_path: Path) -> TrainJob:
    base = tmp_path / "base.safetensors"
    weights = build_expert(MODEL, seed=1).network.state_dict()
    write_checkpoint(base, weights)
    return TrainJob(
        job_id="j",
        model=MODEL,
        work_dir=str(tmp_path / "work"),
        shard_paths=[write_tiny_shard(tmp_path / "shard.safetensors")],
        steps=6,
        batch_size=4,
        seed=11,
        base_path=str(base),
        resume_every_s=0.0,
        steps_per_progress=1,
    )


def ignore(progress: JobProgress) -> None:
    pass


def in_folder(job: TrainJob, folder: Path) -> TrainJob:
    return msgspec.structs.replace(job, work_dir=str(folder))


def delta_bytes(done: TrainDone) -> bytes:
    return Path(done.output_path).read_bytes()


def test_segment_writes_a_delta_that_lowers_the_loss(base_job: TrainJob, tmp_path: Path) -> None:
    job = msgspec.structs.replace(base_job, steps=40)
    seen: list[JobProgress] = []
    done = segment.run(job, seen.append)
    assert done.loss_last < 0.7 * done.loss_first
    assert done.samples == 160
    assert done.flops > 0
    assert [p.step for p in seen] == list(range(1, 41))
    assert read_delta(Path(done.output_path), SHAPES).norm() == pytest.approx(done.delta_norm)


def test_a_finished_segment_whose_output_nobody_took_is_not_trained_from_the_start_again(
    base_job: TrainJob,
) -> None:
    """A pause or a power cut may come before the service has stored the output: hours of work lie in these files."""
    first = segment.run(base_job, ignore)
    raw, seen = delta_bytes(first), []
    again = segment.run(base_job, lambda progress: seen.append(progress.step))
    assert seen == [base_job.steps]
    assert delta_bytes(again) == raw


def test_what_workers_that_were_killed_while_saving_left_behind_goes(base_job: TrainJob) -> None:
    """Each is as large as a resume point, and a node that pauses often would fill its disk."""
    folder = Path(base_job.work_dir)
    folder.mkdir(exist_ok=True)
    torn = [folder / f".resume-{generation}.bin.{pid}.part" for generation, pid in ((0, 7), (1, 8))]
    for path in torn:
        path.write_bytes(b"half of a resume point")
    segment.run(base_job, ignore)
    assert not [path for path in torn if path.exists()]


@pytest.mark.parametrize("name", ["int8.1", "int4.1", "sparse.1"])
def test_a_segment_packs_its_delta_with_the_codec_of_its_job(
    base_job: TrainJob, name: DeltaCodec
) -> None:
    done = segment.run(msgspec.structs.replace(base_job, delta_codec=name), ignore)
    assert read_delta(Path(done.output_path), SHAPES).codec.name == name


def test_killed_segment_continues_to_the_same_bytes(base_job: TrainJob, tmp_path: Path) -> None:
    whole = segment.run(in_folder(base_job, tmp_path / "whole"), ignore)
    job = in_folder(base_job, tmp_path / "killed")
    resumed_from: list[int] = []

    def kill_at(step: int) -> segment.Report:
        def report(progress: JobProgress) -> None:
            resumed_from.append(progress.step)
            if progress.step == step:
                raise Killed

        return report

    for step in (2, 5):
        with pytest.raises(Killed):
            segment.run(job, kill_at(step))
    done = segment.run(job, ignore)
    assert resumed_from == [1, 2, 3, 4, 5]
    assert delta_bytes(done) == delta_bytes(whole)
    assert (done.loss_first, done.loss_last) == (whole.loss_first, whole.loss_last)


@pytest.mark.parametrize("damage", ["empty", "torn", "flipped", "foreign"])
def test_broken_newest_resume_point_falls_back_to_the_one_before(
    base_job: TrainJob, tmp_path: Path, damage: str
) -> None:
    whole = segment.run(in_folder(base_job, tmp_path / "whole"), ignore)

    def kill_at_five(progress: JobProgress) -> None:
        if progress.step == 5:
            raise Killed

    with pytest.raises(Killed):
        segment.run(base_job, kill_at_five)
    points = sorted(Path(base_job.work_dir).glob("resume-*"), key=lambda p: p.stat().st_mtime_ns)
    assert len(points) == 2
    raw = points[-1].read_bytes()
    flipped = raw[:-1] + bytes([raw[-1] ^ 1])
    foreign = msgspec.structs.replace(base_job, seed=99)
    if damage == "foreign":
        raw = raw.replace(
            segment.job_sha256(base_job).encode(), segment.job_sha256(foreign).encode()
        )
    points[-1].write_bytes(
        {"empty": b"", "torn": raw[:-100], "flipped": flipped, "foreign": raw}[damage]
    )
    seen: list[int] = []
    done = segment.run(base_job, lambda progress: seen.append(progress.step))
    assert seen[0] == 5
    assert delta_bytes(done) == delta_bytes(whole)


def test_resume_point_of_another_job_is_not_used(base_job: TrainJob) -> None:
    def kill_at_two(progress: JobProgress) -> None:
        if progress.step == 2:
            raise Killed

    with pytest.raises(Killed):
        segment.run(base_job, kill_at_two)
    seen: list[int] = []
    other = msgspec.structs.replace(base_job, seed=12)
    segment.run(other, lambda progress: seen.append(progress.step))
    assert seen[0] == 1


@pytest.mark.parametrize(("micro_batch", "checkpointing"), [(1, False), (3, False), (2, True)])
def test_micro_batch_and_checkpointing_change_rounding_only(
    base_job: TrainJob, tmp_path: Path, micro_batch: int, checkpointing: bool
) -> None:
    whole = segment.run(in_folder(base_job, tmp_path / "whole"), ignore)
    job = msgspec.structs.replace(
        base_job, micro_batch=micro_batch, checkpoint_activations=checkpointing
    )
    done = segment.run(job, ignore)
    first = read_delta(Path(whole.output_path), SHAPES)
    second = read_delta(Path(done.output_path), SHAPES)
    distance = sum(float((a - second.tensor(n)).square().sum()) for n, a in first.tensors()) ** 0.5
    assert distance < 0.02 * whole.delta_norm
    assert done.loss_last == pytest.approx(whole.loss_last, rel=1e-4)


def test_without_a_base_the_output_is_the_common_seed(base_job: TrainJob) -> None:
    job = msgspec.structs.replace(base_job, base_path=None)
    done = segment.run(job, ignore)
    weights = read_checkpoint(Path(done.output_path), SHAPES)
    start = build_expert(MODEL, seed=job.seed).network.state_dict()
    assert not torch.equal(weights["proj_out.weight"], start["proj_out.weight"])
    assert done.delta_norm == 0.0


def test_batches_depend_on_seed_step_and_sample_only() -> None:
    clips = ClipSet([make_shard(MODEL, 10, 0), make_shard(MODEL, 7, 1)], MODEL)
    drawing = Drawing(purpose=Purpose.TRAIN, text_dropout=0.5)
    plan = BatchPlan(seed=3, batch_size=5, drawing=drawing)
    in_a_row = list(prefetched(clips, plan, range(2, 6)))
    assert len(in_a_row) == 4
    for step, batch in enumerate(in_a_row, start=2):
        alone = training_batch(clips, plan, step)
        assert torch.equal(batch.eps_BCTHW, alone.eps_BCTHW)
        assert torch.equal(batch.x_0_BCTHW, alone.x_0_BCTHW)
        assert torch.equal(batch.text_mask_BL, alone.text_mask_BL)
    dropped = torch.cat([~batch.text_mask_BL.any(1) for batch in in_a_row])
    assert 0 < int(dropped.sum()) < len(dropped)


def test_every_epoch_sees_every_clip_once_in_another_order() -> None:
    indices = order(5, 9, 0, 27)
    epochs = [indices[0:9], indices[9:18], indices[18:27]]
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert order(5, 9, 13, 6) == indices[13:19]


def test_clips_are_read_as_minus_one_to_one() -> None:
    shard = make_shard(MODEL, 3, 0)
    clip = ClipSet([shard], MODEL).clip(2)
    torch.testing.assert_close((clip + 1) * 127.5, torch.from_numpy(shard.clips[2]).float())


def test_shard_of_another_geometry_is_refused() -> None:
    shard = make_shard(MODEL, 3, 0)
    wrong = dataclasses.replace(shard, clips=shard.clips[:, :, :2])
    with pytest.raises(MalformedBytes, match="this swarm's"):
        ClipSet([wrong], MODEL)


class Hungry(torch.nn.Module):
    """Runs out of memory above `most` samples, and always without checkpointing when `most` is 0."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.gradient_checkpointing = False
        self.most = most

    def losses(self, batch: Batch) -> Tensor:
        allowed = self.most if self.most else int(self.gradient_checkpointing)
        if len(batch) > allowed:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.weight * batch.t_B


def hungry_trainer(most: int) -> tuple[Trainer, Hungry]:
    module = Hungry(most)
    return Trainer(module, module.losses, SETTINGS, torch.device("cpu")), module


SETTINGS = OptimizerSettings(
    learning_rate=0.1,
    warmup_steps=4,
    total_steps=20,
    weight_decay=0.0,
    betas=(0.9, 0.9),
    grad_clip=1.0,
)


def four_clips() -> Batch:
    clips = ClipSet([make_shard(MODEL, 4, 0)], MODEL)
    drawing = Drawing(purpose=Purpose.TRAIN, text_dropout=0.0)
    return training_batch(clips, BatchPlan(seed=0, batch_size=4, drawing=drawing), 0)


@pytest.mark.parametrize(("most", "micro_batch"), [(4, 0), (2, 2), (1, 1), (0, 1)])
def test_memory_that_runs_out_shrinks_the_micro_batch_and_keeps_the_step(
    most: int, micro_batch: int
) -> None:
    batch = four_clips()
    trainer, module = hungry_trainer(most)
    loss = trainer.train_step(batch)
    assert loss == pytest.approx(float(batch.t_B.mean()))
    assert trainer.micro_batch == micro_batch
    assert module.gradient_checkpointing == (most == 0)


def test_memory_that_never_suffices_is_an_honest_error() -> None:
    trainer, module = hungry_trainer(0)
    module.gradient_checkpointing = True
    module.most = -1
    with pytest.raises(OutOfMemory, match="does not fit"):
        trainer.train_step(four_clips())


def test_rate_warms_up_holds_and_decays() -> None:
    rates = [learning_rate(step, SETTINGS) for step in range(20)]
    assert rates[0] == pytest.approx(0.025)
    assert rates[3] == rates[9] == 0.1
    assert rates[-1] < 0.02
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_losses_are_summed_up_at_both_ends() -> None:
    assert ends_mean([float(n) for n in range(20)]) == (0.5, 18.5)
    assert ends_mean([3.0]) == (3.0, 3.0)


def test_resume_points_keep_within_the_daily_budget_of_writes() -> None:
    """A point of 1.4B parameters with both moments is 17 GB: 200 GB a day allow one in two hours."""
    policy = SavePolicy(least_s=300.0, bytes_per_day=200e9)
    assert policy.every_s(1_000_000) == 300.0
    assert policy.every_s(17_000_000_000) == pytest.approx(7344.0)
    assert SavePolicy(least_s=300.0).every_s(2**40) == 300.0


def test_a_tight_budget_writes_fewer_points_and_says_how_often(base_job: TrainJob) -> None:
    tight = msgspec.structs.replace(base_job, resume_bytes_per_day=1.0)
    seen: list[JobProgress] = []
    segment.run(tight, seen.append)
    assert {progress.saved_step for progress in seen} == {0}
    assert seen[-1].save_every_s > 86_400.0


def test_a_disk_that_takes_no_resume_point_costs_the_point_and_not_the_segment(
    base_job: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, raw: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(resume_points, "write_atomic", full)
    seen: list[JobProgress] = []
    done = segment.run(base_job, seen.append)
    assert done.steps == base_job.steps
    assert "No space left" in seen[0].save_problem
    assert seen[-1].saved_step == 0


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_bfloat16_is_used_where_it_is_asked_for(base_job: TrainJob, tmp_path: Path) -> None:
    whole = segment.run(in_folder(base_job, tmp_path / "whole"), ignore)
    rounded = segment.run(msgspec.structs.replace(base_job, precision="bfloat16"), ignore)
    assert rounded.loss_last != whole.loss_last
    assert rounded.loss_last == pytest.approx(whole.loss_last, rel=0.02)
