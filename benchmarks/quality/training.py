"""Trains one network on a set of clips, and measures its held-out loss. Owns the batches; the optimizer loop is ours.

Chance comes from one torch generator per run: a run is a function of its clips, start, plan and seed. Times, losses and
the learning rate's schedule are the project's own (flow.py, training.py).
Shapes: B batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from benchmarks.quality.clips import Clips
from torch import Tensor, nn

from kinoswarm_model.experts import Denoiser
from kinoswarm_model.flow import losses_of, times_of
from kinoswarm_model.training import DECAY_SHARE, OptimizerSettings, Trainer
from kinoswarm_model.training_data import Batch
from kinoswarm_protocol.specs import ModelSpec

_WARMUP_STEPS = 20
_NO_END = 2**40
_LOSS_BATCH = 128
_CPU = torch.device("cpu")

OnStep = Callable[[int, float], None]
"""(finished steps, loss of the step)."""


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """One training run."""

    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    ema_decay: float | None = None
    """None takes the last weights; else their exponential moving average."""
    decays: bool = True
    """Whether the learning rate falls to zero at the end; a common seed that is trained on need not."""
    decay_share: float = DECAY_SHARE
    """Over which last share of the steps."""


def train_denoiser(
    module: nn.Module,
    clips: Clips,
    model: ModelSpec,
    plan: TrainPlan,
    on_step: OnStep | None = None,
) -> None:
    """Train in place on all of `clips`."""

    def losses(batch: Batch) -> Tensor:
        predicted = module(batch.x_t_BCTHW, batch.t_B, batch.text_tokens_BLD, batch.text_mask_BL)
        return losses_of(predicted, batch.x_0_BCTHW, batch.eps_BCTHW, batch.t_B, model.recipe)

    recipe = model.recipe
    train(module, losses, clips, plan, lambda n: times_of(n, recipe), recipe.text_dropout, on_step)


def train(
    module: nn.Module,
    losses: Callable[[Batch], Tensor],
    clips: Clips,
    plan: TrainPlan,
    times: Callable[[Tensor], Tensor],
    text_dropout: float,
    on_step: OnStep | None = None,
) -> None:
    """The optimizer loop; `times` makes training times of standard normal numbers."""
    trainer = Trainer(module, losses, optimizer_settings(plan), _CPU)
    chance = torch.Generator().manual_seed(plan.seed)
    average = _Average(module, plan.ema_decay) if plan.ema_decay is not None else None
    for step in range(plan.steps):
        rows = torch.randint(len(clips), (plan.batch_size,), generator=chance)
        loss = trainer.train_step(batch_of(clips, rows, times, text_dropout, chance))
        if average is not None:
            average.update()
        if on_step is not None:
            on_step(step + 1, loss)
    if average is not None:
        average.store()
    module.eval()


def optimizer_settings(plan: TrainPlan) -> OptimizerSettings:
    """AdamW with a short warm-up and, unless told otherwise, a decay to zero at the end."""
    return OptimizerSettings(
        learning_rate=plan.learning_rate,
        warmup_steps=_WARMUP_STEPS,
        total_steps=plan.steps if plan.decays else _NO_END,
        weight_decay=0.0,
        betas=(0.9, 0.95),
        grad_clip=1.0,
        decay_share=plan.decay_share,
    )


def batch_of(
    clips: Clips,
    rows: Tensor,
    times: Callable[[Tensor], Tensor],
    text_dropout: float,
    chance: torch.Generator,
) -> Batch:
    """Clips with noise, times and dropped text drawn from `chance`."""
    x_0 = clips.x_0(rows)
    text = clips.text_of(rows)
    kept_B = torch.rand(len(rows), generator=chance) >= text_dropout
    return Batch(
        x_0_BCTHW=x_0,
        eps_BCTHW=torch.empty_like(x_0).normal_(generator=chance),
        t_B=times(torch.randn(len(rows), generator=chance)),
        text_tokens_BLD=text.tokens_BLD,
        text_mask_BL=text.mask_BL & kept_B[:, None],
        text_pooled_BD=text.pooled_BD * kept_B[:, None],
        label_B=torch.from_numpy(clips.place)[rows],
    )


@torch.no_grad()
def heldout_losses(
    denoiser: Denoiser, clips: Clips, rows: Tensor, model: ModelSpec, seed: int
) -> Tensor:
    """Loss of every clip of `rows` at its own fixed noise and time, with its text: shape (rows,)."""
    found = []
    for start in range(0, len(rows), _LOSS_BATCH):
        part = rows[start : start + _LOSS_BATCH]
        chance = torch.Generator().manual_seed(seed * 1_000_003 + start)
        batch = batch_of(clips, part, lambda n: times_of(n, model.recipe), 0.0, chance)
        predicted = denoiser(batch.x_t_BCTHW, batch.t_B, batch.text_tokens_BLD, batch.text_mask_BL)
        found.append(
            losses_of(predicted, batch.x_0_BCTHW, batch.eps_BCTHW, batch.t_B, model.recipe)
        )
    return torch.cat(found)


class _Average:
    """An exponential moving average of a module's weights."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._live = [parameter.data for parameter in module.parameters()]
        self._mean = [tensor.clone() for tensor in self._live]
        self._decay = decay

    def update(self) -> None:
        torch._foreach_lerp_(self._mean, self._live, 1.0 - self._decay)

    def store(self) -> None:
        for live, mean in zip(self._live, self._mean, strict=True):
            live.copy_(mean)
