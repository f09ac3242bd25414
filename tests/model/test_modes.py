"""Modes: every one learns, can be killed and resumed, and gives a delta of whole weights that others can check."""

from pathlib import Path

import msgspec
import pytest
import torch
from model.samples import tiny_model, write_tiny_shard

from kinoswarm_model import modes, segment, self_test_job
from kinoswarm_model.checkpoints import read_checkpoint, write_checkpoint
from kinoswarm_model.delta import read_delta
from kinoswarm_model.experts import build_expert, tensor_shapes
from kinoswarm_model.jobs import JobProgress, SelfTestJob, TrainDone, TrainJob
from kinoswarm_model.optimizers import OptimizerName, build_optimizer
from kinoswarm_model.self_test_job import Fit, Measured
from kinoswarm_model.training_data import ClipSet, training_batch
from kinoswarm_protocol.specs import ModeSpec

MODEL = tiny_model()
SHAPES = tensor_shapes(MODEL)
FULL = ModeSpec(name="full")
EIGHT_BIT = ModeSpec(name="adam8bit")
LORA = ModeSpec(name="lora", rank=4)
ALL = pytest.mark.parametrize("mode", [FULL, EIGHT_BIT, LORA], ids=lambda mode: mode.label)


class Killed(BaseException):
    """Stands for the process ending at this very moment."""


@pytest.fixture
def base_job(tmp_path: Path) -> TrainJob:
    base = tmp_path / "base.safetensors"
    write_checkpoint(base, build_expert(MODEL, seed=1).network.state_dict())
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


def changed(job: TrainJob, **fields: object) -> TrainJob:
    return msgspec.structs.replace(job, **fields)


def differences(done: TrainDone) -> dict[str, torch.Tensor]:
    return dict(read_delta(Path(done.output_path), SHAPES).tensors())


@ALL
def test_every_mode_lowers_the_loss(base_job: TrainJob, mode: ModeSpec) -> None:
    done = segment.run(changed(base_job, mode=mode, steps=30), ignore)
    assert done.loss_last < 0.85 * done.loss_first


@ALL
def test_a_killed_segment_continues_to_the_same_bytes_in_every_mode(
    base_job: TrainJob, tmp_path: Path, mode: ModeSpec
) -> None:
    """The kill comes right after the resume point of step 3."""
    job = changed(base_job, mode=mode)
    whole = segment.run(changed(job, work_dir=str(tmp_path / "whole")), ignore)

    def kill(progress: JobProgress) -> None:
        if progress.step == 3:
            raise Killed

    with pytest.raises(Killed):
        segment.run(job, kill)
    seen: list[int] = []
    done = segment.run(job, lambda progress: seen.append(progress.step))
    assert seen[0] == 4
    assert Path(done.output_path).read_bytes() == Path(whole.output_path).read_bytes()


@pytest.mark.parametrize(("mode", "micro_batch"), [(FULL, 1), (FULL, 2), (EIGHT_BIT, 1), (LORA, 1)])
def test_micro_batches_give_the_same_curve(
    base_job: TrainJob, tmp_path: Path, mode: ModeSpec, micro_batch: int
) -> None:
    def losses(folder: str, size: int) -> list[float]:
        seen: list[float] = []
        job = changed(base_job, mode=mode, work_dir=str(tmp_path / folder), micro_batch=size)
        segment.run(job, lambda progress: seen.append(progress.loss or 0.0))
        return seen

    assert losses("small", micro_batch) == pytest.approx(losses("whole", 4), rel=1e-4)


def test_eight_bit_moments_stay_close_to_full_training(base_job: TrainJob, tmp_path: Path) -> None:
    full = differences(segment.run(changed(base_job, steps=20), ignore))
    job = changed(base_job, steps=20, mode=EIGHT_BIT, work_dir=str(tmp_path / "8bit"))
    eight = differences(segment.run(job, ignore))
    a = torch.cat([full[name].flatten() for name in sorted(full)])
    b = torch.cat([eight[name].flatten() for name in sorted(full)])
    assert float(torch.cosine_similarity(a, b, dim=0)) > 0.95


def test_eight_bit_moments_take_a_quarter_of_the_memory() -> None:
    def state_bytes(name: OptimizerName) -> int:
        parameter = torch.nn.Parameter(torch.zeros(256, 256))
        optimizer = build_optimizer(name, {"w": parameter}, (0.9, 0.95), 0.0)
        parameter.grad = torch.ones_like(parameter)
        optimizer.step(0.1)
        return sum(tensor.nbytes for tensor in optimizer.state_tensors().values())

    assert state_bytes("adamw8bit") < 0.27 * state_bytes("adamw")


def test_lora_leaves_small_layers_alone_and_changes_large_ones_by_a_low_rank(
    base_job: TrainJob, tmp_path: Path
) -> None:
    expert, base = segment.starting_point(base_job)
    trainer = segment.expert_trainer(expert, changed(base_job, mode=LORA))
    clips = ClipSet.read(base_job.shard_paths, MODEL)
    for step in range(3):
        trainer.train_step(training_batch(clips, segment.batch_plan(base_job), step))
    assert base is not None
    after = modes.trained_weights(expert.network, LORA, base)
    assert set(after) == set(base)
    assert torch.equal(after["proj_out.weight"], base["proj_out.weight"])
    change = after["blocks.0.attn1.to_q.weight"] - base["blocks.0.attn1.to_q.weight"]
    assert int(torch.linalg.matrix_rank(change, rtol=1e-4)) == LORA.rank
    resumable = trainer.state()
    assert all("lora_" in name for name in resumable)


def test_merged_lora_weights_compute_what_the_adapters_did(base_job: TrainJob) -> None:
    expert, base = segment.starting_point(base_job)
    assert base is not None
    trainer = segment.expert_trainer(expert, changed(base_job, mode=LORA))
    clips = ClipSet.read(base_job.shard_paths, MODEL)
    batch = training_batch(clips, segment.batch_plan(base_job), 0)
    trainer.train_step(batch)
    merged = build_expert(MODEL, seed=2)
    merged.network.load_state_dict(modes.trained_weights(expert.network, LORA, base))
    with torch.no_grad():
        adapted = segment.expert_losses(expert, batch, MODEL.recipe)
        whole = segment.expert_losses(merged, batch, MODEL.recipe)
    torch.testing.assert_close(whole, adapted, rtol=1e-4, atol=1e-5)


def test_a_common_seed_can_be_trained_in_every_mode(base_job: TrainJob, tmp_path: Path) -> None:
    for mode in (EIGHT_BIT, LORA):
        job = changed(base_job, mode=mode, base_path=None, work_dir=str(tmp_path / mode.name))
        read_checkpoint(Path(segment.run(job, ignore).output_path), SHAPES)


def self_test(modes_wanted: list[ModeSpec]) -> SelfTestJob:
    model = msgspec.structs.replace(MODEL, modes=modes_wanted)
    return SelfTestJob(job_id="s", model=model, work_dir="", batch_size=4, seed=0)


def test_a_machine_proposes_the_first_mode_that_fits_and_those_that_need_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measure(
        job: SelfTestJob, mode: ModeSpec, device: torch.device, fit: Fit
    ) -> Measured | None:
        return None if mode.name == "full" else Measured(fit, 1.0, 0)

    monkeypatch.setattr(self_test_job, "measure", measure)
    best, fitting = self_test_job.best_modes(
        self_test([FULL, EIGHT_BIT, LORA]), torch.device("cpu")
    )
    assert best is not None
    assert fitting == [EIGHT_BIT, LORA]


def test_a_mode_whose_library_is_missing_is_not_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes.left_out, "is_installed", lambda name: False)
    done = self_test_job.run(self_test([LORA, FULL]), ignore)
    assert done.ok
    assert done.modes == [FULL]


@pytest.mark.parametrize("mode", [("lora", 0), ("full", 3)])
def test_a_rank_belongs_to_lora_alone(mode: tuple[str, int]) -> None:
    with pytest.raises(msgspec.ValidationError, match="rank"):
        msgspec.convert(list(mode), ModeSpec)


def test_lora_trains_in_float32_where_the_volunteer_asks_for_it(
    base_job: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a card that would compute in bfloat16: the frozen weights must be of the type that is computed in."""

    def of_a_card(device: torch.device, wanted: str = "auto") -> torch.dtype:
        return torch.float32 if wanted == "float32" else torch.bfloat16

    monkeypatch.setattr(modes, "training_dtype", of_a_card)
    done = segment.run(changed(base_job, mode=LORA, precision="float32"), ignore)
    assert done.steps == base_job.steps
