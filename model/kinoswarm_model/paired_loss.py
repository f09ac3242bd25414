"""Paired held-out losses: two models on equal (clip, noise, t) triples. Owns the triples and their statistics.

The difference of paired losses has a far smaller error than either loss: chance in noise and time cancels. An expert is
judged by what it is trained on: honest work on the noise may well raise the error of the velocity a little.
Shapes: B batch.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from kinoswarm_model.experts import Expert
from kinoswarm_model.jobs import PairedLoss
from kinoswarm_model.noise import Purpose
from kinoswarm_model.segment import expert_losses
from kinoswarm_model.training_data import Batch, ClipSet, Drawing, order
from kinoswarm_protocol.specs import ModelSpec, Objective

_BATCH = 32
_DRAWING = Drawing(purpose=Purpose.EVALUATE, text_dropout=0.0)


class Triples:
    """`pairs` fixed triples of a held-out file: a function of (seed, pair) only. Text is never dropped."""

    def __init__(self, clips: ClipSet, pairs: int, seed: int) -> None:
        self._clips = clips
        self._seed = seed
        self._indices = order(seed, len(clips), 0, pairs)

    def __len__(self) -> int:
        return len(self._indices)

    def batches(self) -> Iterator[Batch]:
        """The triples in batches, in order."""
        for start in range(0, len(self), _BATCH):
            pairs = range(start, min(start + _BATCH, len(self)))
            draws = _DRAWING.draw(self._seed, [(pair,) for pair in pairs], self._clips.model)
            yield self._clips.batch([self._indices[pair] for pair in pairs], draws)


@torch.no_grad()
def losses_on(
    expert: Expert,
    triples: Triples,
    device: torch.device,
    model: ModelSpec,
    objective: Objective = "velocity",
) -> Tensor:
    """The loss of every triple, float64, shape (pairs,)."""
    expert.to(device).eval()
    batches = triples.batches()
    return torch.cat([losses_of_batch(expert, each, device, model, objective) for each in batches])


@torch.no_grad()
def losses_of_batch(
    expert: Expert,
    batch: Batch,
    device: torch.device,
    model: ModelSpec,
    objective: Objective = "velocity",
) -> Tensor:
    """The loss of every clip of a batch, float64, shape (B,)."""
    whole = batch.part(0, len(batch), device)
    return expert_losses(expert, whole, model.recipe, objective).double().cpu()


def losses_of_weights(
    expert: Expert,
    weights: Mapping[str, Tensor],
    triples: Triples,
    device: torch.device,
    model: ModelSpec,
    objective: Objective = "velocity",
) -> Tensor:
    """The losses of an expert with these weights; the expert keeps them."""
    expert.network.load_state_dict(dict(weights))
    return losses_on(expert, triples, device, model, objective)


def paired(base_B: Tensor, candidate_B: Tensor) -> PairedLoss:
    """Means, and the mean difference with its standard error (0 with a single pair)."""
    difference_B = candidate_B - base_B
    count = len(difference_B)
    error = float(difference_B.std(correction=1)) / count**0.5 if count > 1 else 0.0
    return PairedLoss(
        base=float(base_B.mean()),
        candidate=float(candidate_B.mean()),
        difference=float(difference_B.mean()),
        standard_error=error,
        num_pairs=count,
    )
