"""What enters a release: the best of the newest versions, unless the last release's expert is better."""

from pathlib import Path

import pytest
import torch
from model.samples import make_shard
from msgspec import structs
from release.tiny_release import tiny_job, tiny_model

from kinoswarm_model.canary import Choice, best_of, chosen_experts
from kinoswarm_model.checkpoints import weights_of, write_checkpoint
from kinoswarm_model.data.shards import write_shard
from kinoswarm_model.experts import build_expert
from kinoswarm_model.jobs import Candidate, ReleaseJob
from kinoswarm_model.release_job import run
from kinoswarm_protocol.errors import LocalError

MARGIN = 0.01


def candidate(version: int, lineage: int = 0) -> Candidate:
    return Candidate(cluster=0, version=version, path=f"{lineage}/{version}", lineage=lineage)


def losses(mean: float, seed: int = 0) -> torch.Tensor:
    """Of 64 triples, whose own differences are the same for every candidate."""
    noise = torch.randn(64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    own = torch.randn(64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mean + 0.1 * noise + 0.001 * own


OLD, NEW, OTHER = candidate(3), candidate(5), candidate(4, lineage=1)


def test_a_better_version_enters() -> None:
    assert best_of([NEW], OLD, [losses(0.5, 2), losses(0.6, 3)], MARGIN) == Choice(NEW)


def test_a_worse_version_is_held_back_with_both_losses() -> None:
    choice = best_of([NEW], OLD, [losses(0.6, 2), losses(0.5, 3)], MARGIN)
    assert choice.expert == OLD
    assert "version 5 has a held-out loss of 0.6" in choice.held_back
    assert "version 3 of the last release 0.5" in choice.held_back


def test_a_version_that_is_worse_within_the_margin_enters() -> None:
    assert best_of([NEW], OLD, [losses(0.502, 2), losses(0.5, 3)], MARGIN) == Choice(NEW)


def test_the_better_lineage_enters() -> None:
    figures = [losses(0.5, 2), losses(0.4, 3), losses(0.6, 4)]
    assert best_of([NEW, OTHER], OLD, figures, MARGIN) == Choice(OTHER)
    assert best_of([NEW, OTHER], None, figures[:2], MARGIN) == Choice(OTHER)


def test_a_loss_that_is_not_finite_never_wins() -> None:
    broken = torch.full((64,), float("nan"), dtype=torch.float64)
    assert best_of([NEW], OLD, [broken, losses(0.5)], MARGIN).expert == OLD
    assert best_of([NEW, OTHER], None, [broken, losses(0.5)], MARGIN) == Choice(OTHER)
    with pytest.raises(LocalError, match="finite held-out loss"):
        best_of([NEW], None, [broken], MARGIN)


def job_with_a_poisoned_newest(folder: Path) -> ReleaseJob:
    """Cluster 0: the last release has version 2, and version 3 is noise. Cluster 1 has nothing newer."""
    job = tiny_job(folder)
    weights = weights_of(build_expert(tiny_model(), seed=0).network)
    generator = torch.Generator().manual_seed(5)
    write_checkpoint(
        folder / "poisoned",
        {
            name: tensor + torch.randn(tensor.shape, generator=generator)
            for name, tensor in weights.items()
        },
    )
    heldout = [folder / f"heldout-{cluster}" for cluster in (0, 1)]
    for seed, path in enumerate(heldout):
        write_shard(path, make_shard(tiny_model(), 24, seed))
    poisoned = Candidate(cluster=0, version=3, path=str(folder / "poisoned"))
    return structs.replace(
        job,
        experts=[poisoned, job.experts[1]],
        standing=job.experts,
        heldout_paths=[str(path) for path in heldout],
        pairs=48,
        margin=MARGIN,
    )


def test_a_poisoned_version_stays_out_of_the_release(tmp_path: Path) -> None:
    job = job_with_a_poisoned_newest(tmp_path)
    chosen = chosen_experts(job, lambda done, total: None)
    assert [choice.expert.version for choice in chosen] == [2, 1]
    done = run(job, lambda progress: None)
    assert done.chosen == job.standing
    assert len(done.held_back) == 1
    assert done.held_back[0].startswith("brown corridor: version 3 has a held-out loss of")
