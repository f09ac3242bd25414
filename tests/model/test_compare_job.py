"""Runs of one work order on unlike machines lie near each other; other work does not."""

from pathlib import Path

import pytest
import torch
from model.samples import tiny_model, write_tiny_shard

from kinoswarm_model import compare_job, segment
from kinoswarm_model.checkpoints import write_checkpoint
from kinoswarm_model.experts import build_expert
from kinoswarm_model.jobs import CompareJob, JobProgress, PairDistance, TrainJob

MODEL = tiny_model()


def ignore(progress: JobProgress) -> None:
    pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same order with other micro-batches and threads, and three that did something else."""
    folder = tmp_path_factory.mktemp("runs")
    shard = write_tiny_shard(folder / "shard.safetensors")
    write_checkpoint(folder / "base.safetensors", build_expert(MODEL, seed=1).network.state_dict())
    orders = {
        "one": {"micro_batch": 8, "threads": 1},
        "two": {"micro_batch": 2, "threads": 2},
        "lazy": {"steps": 2},
        "other-seed": {"seed": 9},
    }
    for name, changes in orders.items():
        wanted = {"steps": 20, "seed": 3, **changes}
        job = TrainJob(
            job_id="t",
            model=MODEL,
            work_dir=str(folder / f"work-{name}"),
            shard_paths=[shard],
            batch_size=8,
            base_path=str(folder / "base.safetensors"),
            delta_codec="int4.1",
            **wanted,
        )
        Path(segment.run(job, ignore).output_path).rename(folder / f"{name}.zst")
    (folder / "garbage.zst").write_bytes(b"not a delta")
    return folder


def compared(folder: Path, *names: str) -> list[PairDistance]:
    job = CompareJob(
        job_id="c",
        model=MODEL,
        work_dir=str(folder / "compare"),
        delta_paths=[str(folder / f"{name}.zst") for name in names],
    )
    return compare_job.run(job, ignore).distances


def test_micro_batch_and_threads_change_next_to_nothing(runs: Path) -> None:
    (pair,) = compared(runs, "one", "two")
    assert pair.distance is not None
    assert pair.distance < 0.1
    assert pair.cosine is not None
    assert pair.cosine > 0.99


@pytest.mark.parametrize("other", ["lazy", "other-seed"])
def test_a_tenth_of_the_steps_or_other_data_lies_far_away(runs: Path, other: str) -> None:
    (pair,) = compared(runs, "one", other)
    assert pair.distance is not None
    assert pair.distance > 0.5


def test_a_delta_that_cannot_be_read_has_no_distance_and_the_others_have(runs: Path) -> None:
    pairs = {
        (pair.first, pair.second): pair.distance for pair in compared(runs, "one", "garbage", "two")
    }
    assert pairs[0, 1] is None
    assert pairs[1, 2] is None
    assert pairs[0, 2] is not None


def test_two_empty_deltas_are_equal_and_an_empty_one_is_far_from_any_other(runs: Path) -> None:
    from kinoswarm_model.delta import write_delta

    base = build_expert(MODEL, seed=1).network.state_dict()
    for name in ("nothing", "nothing-again"):
        write_delta(runs / f"{name}.zst", base, base)
    far = {name: tensor + torch.ones_like(tensor) for name, tensor in base.items()}
    write_delta(runs / "far.zst", base, far)
    pairs = compared(runs, "nothing", "nothing-again", "far")
    assert [pair.distance for pair in pairs] == [0.0, 1.0, 1.0]
