"""Versions by steps: base and step give the published bytes, of one contribution or several; nothing else does."""

from pathlib import Path

import pytest
import torch
from model.samples import tiny_model, write_tiny_shard

from kinoswarm_model import merge_job, version_steps
from kinoswarm_model.checkpoints import read_checkpoint, write_checkpoint
from kinoswarm_model.delta import read_delta, write_delta
from kinoswarm_model.delta_codecs import INT4
from kinoswarm_model.experts import build_expert, tensor_shapes
from kinoswarm_model.jobs import (
    JobProgress,
    MergeDelta,
    MergeDone,
    MergeJob,
    RebuildDone,
    RebuildJob,
)
from kinoswarm_model.merge import OuterSettings
from kinoswarm_model.worker_jobs import compute
from kinoswarm_protocol.errors import HashMismatch

MODEL = tiny_model()
SHAPES = tensor_shapes(MODEL)
OUTER = OuterSettings(rate=0.7, momentum=0.9, norm_clip=3.0)


def ignore(progress: JobProgress) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and deltas of three contributors who all moved its weights a little."""
    folder = tmp_path_factory.mktemp("versions")
    write_tiny_shard(folder / "heldout.safetensors", count=8, seed=1)
    base = build_expert(MODEL, seed=1).network.state_dict()
    write_checkpoint(folder / "base.safetensors", base)
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        new = {
            name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator)
            for name, tensor in base.items()
        }
        write_delta(folder / f"{number}.zst", base, new, INT4)
    return folder


def merged(folder: Path, base: str, count: int, work: str, freshness: float = 1.0) -> MergeDone:
    job = MergeJob(
        job_id="m",
        model=MODEL,
        work_dir=str(folder / work),
        base_path=base,
        deltas=[
            MergeDelta(path=str(folder / f"{number}.zst"), weight=1.0 + number, key=str(number))
            for number in range(count)
        ],
        outer_rate=0.7,
        outer_momentum=0.9,
        momentum_path=None,
        norm_clip=3.0,
        heldout_path=str(folder / "heldout.safetensors"),
        pairs=8,
        seed=5,
        freshness=freshness,
    )
    return merge_job.run(job, ignore)


def rebuild(folder: Path, base: str, steps: list[str], wanted: str) -> bytes:
    job = RebuildJob(
        job_id="r",
        model=MODEL,
        work_dir=str(folder / "rebuilding"),
        base_path=base,
        step_paths=steps,
        blob=version_steps.blob_of(Path(wanted).read_bytes()),
    )
    done = compute(job, ignore)  # as a worker does
    assert isinstance(done, RebuildDone)
    return Path(done.checkpoint_path).read_bytes()


def test_two_versions_come_back_byte_for_byte_from_the_seed_and_their_steps(folder: Path) -> None:
    seed = str(folder / "base.safetensors")
    one = merged(folder, seed, 1, "v1")
    two = merged(folder, one.checkpoint_path, 3, "v2")
    assert one.step_path == str(folder / "0.zst")
    again = rebuild(folder, seed, [one.step_path, two.step_path], two.checkpoint_path)
    assert again == Path(two.checkpoint_path).read_bytes()
    assert Path(two.step_path).stat().st_size < len(again) / 3


def test_a_published_version_differs_from_the_exact_merge_by_the_codes_rounding_alone(
    folder: Path,
) -> None:
    seed = folder / "base.safetensors"
    done = merged(folder, str(seed), 3, "v3")
    base = read_checkpoint(seed, SHAPES)
    exact = merge_job.merged_of(
        MergeJob(
            job_id="m",
            model=MODEL,
            work_dir="",
            base_path=str(seed),
            deltas=[
                MergeDelta(path=str(folder / f"{n}.zst"), weight=1.0 + n, key=str(n))
                for n in range(3)
            ],
            outer_rate=0.7,
            outer_momentum=0.9,
            momentum_path=None,
            norm_clip=3.0,
            heldout_path="",
            pairs=0,
            seed=0,
        ),
        base,
        SHAPES,
        OuterSettings(rate=1.0, momentum=0.0, norm_clip=3.0) if done.restarted else OUTER,
    ).weights
    published = read_checkpoint(Path(done.checkpoint_path), SHAPES)
    for name, tensor in exact.items():
        largest = float((tensor - base[name]).abs().max())
        assert float((published[name] - tensor).abs().max()) <= largest / 240


def test_a_single_stale_contribution_that_does_harm_is_shortened_and_rebuilds_its_version(
    folder: Path,
) -> None:
    seed = str(folder / "base.safetensors")
    whole = merged(folder, seed, 1, "v5")
    assert whole.loss.difference > 0.0
    done = merged(folder, seed, 1, "v6", freshness=0.5)
    assert done.restarted
    assert done.loss.difference < whole.loss.difference
    rebuilt = rebuild(folder, seed, [done.step_path], done.checkpoint_path)
    assert rebuilt == Path(done.checkpoint_path).read_bytes()
    base, delta = read_checkpoint(Path(seed), SHAPES), read_delta(folder / "0.zst", SHAPES)
    for name, tensor in read_checkpoint(Path(done.checkpoint_path), SHAPES).items():
        half = 0.5 * delta.tensor(name)
        assert float((tensor - base[name] - half).abs().max()) <= float(half.abs().max()) / 120


def test_other_steps_are_told_from_the_right_ones(folder: Path) -> None:
    seed = str(folder / "base.safetensors")
    done = merged(folder, seed, 1, "v4")
    with pytest.raises(HashMismatch, match="the whole version is needed"):
        rebuild(folder, seed, [str(folder / "1.zst")], done.checkpoint_path)
    assert read_delta(folder / "1.zst", SHAPES)
