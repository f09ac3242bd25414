"""Whoever trained on the samples of its lease can be told from who trained on others."""

from pathlib import Path

import pytest
import torch
from model.samples import tiny_model, write_tiny_shard

from kinoswarm_model import evaluate_job, segment
from kinoswarm_model.jobs import (
    AssignedSegment,
    DeltaReport,
    EvaluateJob,
    JobProgress,
    PairedLoss,
    TrainJob,
)
from kinoswarm_model.own_work import OwnSamples
from kinoswarm_model.segment import batch_plan
from kinoswarm_model.training_data import ClipSet, training_batch

MODEL = tiny_model()
STEPS, BATCH, SEED = 16, 8, 5
SEED_STEPS = 150
"""A fresh network moves so far that chance hides what it learnt of single samples."""


def ignore(progress: JobProgress) -> None: ...


def trained(folder: Path, name: str, seed: int, steps: int = STEPS, base: str | None = None) -> str:
    """Trained on a shard of this folder."""
    job = TrainJob(
        job_id=name,
        model=MODEL,
        work_dir=str(folder / name),
        shard_paths=[str(folder / "shard.safetensors")],
        steps=steps,
        batch_size=BATCH,
        seed=seed,
        base_path=base,
    )
    (folder / name).mkdir()
    return segment.run(job, ignore).output_path


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[DeltaReport]:
    """Of who trained under the order, of who trained under another one, and of the first when nobody asks."""
    folder = tmp_path_factory.mktemp("own")
    torch.set_num_threads(1)
    write_tiny_shard(folder / "shard.safetensors", 200)
    write_tiny_shard(folder / "heldout.safetensors", 24, seed=1)
    write_tiny_shard(folder / "foreign.safetensors", 24, seed=2, brightness=100)
    base = trained(folder, "base", 1, SEED_STEPS)
    own, other = (trained(folder, f"{seed}", seed, base=base) for seed in (SEED, SEED + 1))
    asked = AssignedSegment(seed=SEED, steps=STEPS, batch_size=BATCH)
    job = EvaluateJob(
        job_id="e",
        model=MODEL,
        work_dir=str(folder),
        base_path=base,
        delta_paths=[own, other, own],
        heldout_path=str(folder / "heldout.safetensors"),
        pairs=16,
        seed=9,
        segments=[asked, asked, None],
        shard_paths=[str(folder / "shard.safetensors")],
        foreign_heldout_path=str(folder / "foreign.safetensors"),
        probes=128,
    )
    return evaluate_job.run(job, ignore).reports


def score(loss: PairedLoss | None) -> float:
    assert loss is not None
    return -loss.difference / loss.standard_error


def test_assigned_samples_fall_further_than_their_controls(reports: list[DeltaReport]) -> None:
    own, other, _ = reports
    assert score(own.assigned) > 2.0
    assert abs(score(other.assigned)) < 2.0


def test_another_clusters_loss_is_told_where_somebody_asks(reports: list[DeltaReport]) -> None:
    own, _, unasked = reports
    assert own.foreign is not None
    assert own.foreign.num_pairs == 128
    assert (unasked.assigned, unasked.foreign) == (None, None)
    assert unasked.loss == own.loss


def test_the_samples_are_those_of_the_training_itself(tmp_path: Path) -> None:
    clips = ClipSet.read([write_tiny_shard(tmp_path / "s.safetensors", 40)], MODEL)
    asked = AssignedSegment(seed=SEED, steps=2, batch_size=BATCH)
    job = TrainJob(
        job_id="t", model=MODEL, work_dir="", shard_paths=[], steps=2, batch_size=BATCH, seed=SEED
    )
    [(assigned, control)] = OwnSamples(clips, asked, probes=2 * BATCH, chance=3).pairs()
    batches = [training_batch(clips, batch_plan(job), step) for step in range(2)]
    assert torch.equal(assigned.x_t_BCTHW, torch.cat([batch.x_t_BCTHW for batch in batches]))
    assert torch.equal(assigned.text_mask_BL, torch.cat([batch.text_mask_BL for batch in batches]))
    assert torch.equal(assigned.t_B, control.t_B)
    assert torch.equal(assigned.x_0_BCTHW, control.x_0_BCTHW)
    assert not torch.equal(assigned.eps_BCTHW, control.eps_BCTHW)
