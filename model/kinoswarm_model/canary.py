"""Which expert of a cluster enters a release: the best of its newest versions, unless the last release's is better.

Every version was compared with the one before it when it was cut, so small losses may add up, and each comparison saw
other noise. Here the newest versions of a cluster's lineages and the one that the last release has look at equal
held-out triples once more, drawn anew. Shapes: B batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kinoswarm_model.checkpoints import read_checkpoint
from kinoswarm_model.experts import build_expert, tensor_shapes
from kinoswarm_model.jobs import Candidate, ReleaseJob
from kinoswarm_model.margins import is_beyond
from kinoswarm_model.paired_loss import Triples, losses_of_weights, paired
from kinoswarm_model.training_data import ClipSet
from kinoswarm_protocol.errors import LocalError


@dataclass(frozen=True)
class Choice:
    """One cluster's expert; `held_back` says why it is not a newer one, empty if it is the newest."""

    expert: Candidate
    held_back: str = ""


def chosen_experts(job: ReleaseJob, report: Callable[[int, int], None]) -> list[Choice]:
    """One expert for every cluster, in their order. Raises LocalError when a cluster has none to choose from."""
    choices: list[Choice] = []
    clusters = range(len(job.cluster_labels))
    for cluster in clusters:
        newest = [found for found in job.experts if found.cluster == cluster]
        standing = next((found for found in job.standing if found.cluster == cluster), None)
        if not newest:
            raise LocalError(f"the release has no expert for cluster {cluster}")
        choices.append(_chosen(job, cluster, newest, standing))
        report(cluster + 1, len(clusters))
    return choices


def _chosen(
    job: ReleaseJob, cluster: int, newest: Sequence[Candidate], standing: Candidate | None
) -> Choice:
    if len(newest) == 1 and (standing is None or standing.path == newest[0].path):
        return Choice(newest[0])
    losses = _losses(job, cluster, [*newest, *([standing] if standing else [])])
    return best_of(newest, standing, losses, job.margin)


def best_of(
    newest: Sequence[Candidate],
    standing: Candidate | None,
    losses_B: Sequence[Tensor],
    margin: float,
) -> Choice:
    """The newest version with the lowest loss, or the standing one where that is better beyond chance and margin.

    `losses_B`: those of `newest` on equal triples, then those of `standing`. A loss that is not finite never wins.
    """
    usable = [place for place in range(len(newest)) if bool(losses_B[place].isfinite().all())]
    best = min(usable, key=lambda place: float(losses_B[place].mean()), default=None)
    if best is None:
        if standing is None:
            raise LocalError(f"no expert of cluster {newest[0].cluster} has a finite held-out loss")
        return Choice(standing, "the held-out loss of the newest version is not finite")
    if standing is None:
        return Choice(newest[best])
    loss = paired(losses_B[-1], losses_B[best])
    if not is_beyond(loss.difference, loss.standard_error, loss.base, margin):
        return Choice(newest[best])
    return Choice(
        standing,
        f"version {newest[best].version} has a held-out loss of {loss.candidate:.4f}, version "
        f"{standing.version} of the last release {loss.base:.4f}",
    )


def _losses(job: ReleaseJob, cluster: int, candidates: Sequence[Candidate]) -> list[Tensor]:
    triples = Triples(ClipSet.read([job.heldout_paths[cluster]], job.model), job.pairs, job.seed)
    expert, shapes = build_expert(job.model, seed=0), tensor_shapes(job.model)
    return [
        losses_of_weights(
            expert,
            read_checkpoint(Path(candidate.path), shapes),
            triples,
            torch.device(job.device),
            job.model,
            job.objective_of(cluster),
        )
        for candidate in candidates
    ]
