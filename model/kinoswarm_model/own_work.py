"""Whether a delta learnt the very samples that its lease assigned. Owns these samples and their controls; no verdict.

A lease fixes clips, times and noise. Whoever trained on them lowered the loss of these very samples more than that of
the same clips, texts and times under other noise; whoever trained on anything else, or hardly at all, lowered both
alike. (Comparing the loss on assigned and other data is Gauntlet's idea, arXiv 2505.21684; a control that differs
in nothing but the noise takes out how easy the clips are.)
Shapes: B batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from kinoswarm_model.jobs import AssignedSegment
from kinoswarm_model.noise import Purpose, stream
from kinoswarm_model.training_data import Batch, ClipSet, Drawing, order

_BATCH = 32

LossesOn = Callable[[Batch], Tensor]
"""Losses of one model, float64, shape (B,)."""


class OwnSamples:
    """Some of a segment's samples, drawn by a seed that its node can't know, each beside its control."""

    def __init__(self, clips: ClipSet, segment: AssignedSegment, probes: int, chance: int) -> None:
        self._clips, self._segment, self._chance = clips, segment, chance
        total = segment.steps * segment.batch_size
        chosen = stream(chance, Purpose.ORDER).choice(total, min(probes, total), replace=False)
        self._samples = sorted(int(sample) for sample in chosen)

    def pairs(self) -> Iterator[tuple[Batch, Batch]]:
        """Assigned samples, and the same under other noise."""
        for start in range(0, len(self._samples), _BATCH):
            assigned = self._assigned(self._samples[start : start + _BATCH])
            yield assigned, replace(assigned, eps_BCTHW=self._other_noise(start, len(assigned)))

    def _assigned(self, samples: list[int]) -> Batch:
        segment, model = self._segment, self._clips.model
        drawing = Drawing(purpose=Purpose.TRAIN, text_dropout=model.recipe.text_dropout)
        names = [divmod(sample, segment.batch_size) for sample in samples]
        indices = [order(segment.seed, len(self._clips), sample, 1)[0] for sample in samples]
        return self._clips.batch(indices, drawing.draw(segment.seed, names, model))

    def _other_noise(self, start: int, count: int) -> Tensor:
        drawing = Drawing(purpose=Purpose.EVALUATE, text_dropout=0.0)
        names = [(start + row,) for row in range(count)]
        return drawing.draw(self._chance, names, self._clips.model).eps_BCTHW


def losses_beside(samples: OwnSamples, losses_on: LossesOn) -> Tensor:
    """Loss of every assigned sample less that of its control, shape (probes,)."""
    found = [losses_on(assigned) - losses_on(control) for assigned, control in samples.pairs()]
    return torch.cat(found)
