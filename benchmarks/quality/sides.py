"""Trains the two sides of the comparison to the same FLOPs. Owns the budget of each part and the partitions.

Monolith: `steps` at batch B on everything. Experts: a common seed on everything, then K experts on their own clusters
from the seed's weights, each at batch B / K as is the seed, and the router; what seed and router cost is taken off the
experts' steps.
Shapes: N clips, K experts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch
from benchmarks.quality.clips import Clips, QualityData
from benchmarks.quality.flop_count import expert_step_flops, router_step_flops
from benchmarks.quality.regime import Regime, model_of
from benchmarks.quality.together import train_together
from benchmarks.quality.training import TrainPlan, train, train_denoiser
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kinoswarm_model.experts import Expert, build_expert
from kinoswarm_model.router import Router, build_router
from kinoswarm_model.training_data import Batch
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.specs import ModelSpec


class Partition(StrEnum):
    """How clips are divided between experts."""

    SEMANTIC = "semantic"
    """Whole places by the two-level balanced k-means of pictures and captions."""
    RANDOM = "random"
    """Every clip by a die."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One side of the comparison, but for the regime and the seed."""

    num_experts: int
    """1 is the monolith."""
    batch_size: int
    """Of the monolith, or of all experts together; samples are the regime's whatever it is."""
    learning_rate: float
    seed_share: float = 0.0
    """Of the budget, for the common seed."""
    seed_decays: bool = True
    """Whether the seed's learning rate falls to zero before the experts start from it."""
    partition: Partition = Partition.SEMANTIC
    ema_decay: float | None = None


@dataclass(frozen=True)
class Spent:
    """Training FLOPs of a side, and optimizer steps of each expert."""

    budget: float
    seed: float
    experts: float
    router: float
    expert_steps: int
    seed_steps: int

    @property
    def total(self) -> float:
        """All that this side took; at most the budget."""
        return self.seed + self.experts + self.router


@dataclass(frozen=True)
class TrainedSide:
    """Networks of one side. The monolith is one expert without a router."""

    experts: list[Expert]
    router: Router | None
    cluster_of_place: NDArray[np.int64]
    """(places,) the expert of every place; zeros for a monolith. Meaningless for random partitions."""
    spent: Spent


Report = Callable[[str], None]


def train_side(
    data: QualityData, regime: Regime, setup: Setup, seed: int, report: Report
) -> TrainedSide:
    """Train one side from nothing. Raises LocalError when nothing of the budget is left for the experts."""
    model = model_of(regime)
    spent = budget_of(regime, setup)
    first = build_expert(model, seed=seed)
    if setup.num_experts == 1:
        plan = _plan(setup, spent.expert_steps, setup.batch_size, seed)
        train_denoiser(first, data.training, model, plan)
        return TrainedSide([first], None, np.zeros(len(data.places), dtype=np.int64), spent)
    if spent.seed_steps:
        report("seed")
        seed_plan = replace(
            _plan(setup, spent.seed_steps, setup.batch_size // setup.num_experts, seed),
            decays=setup.seed_decays,
        )
        train_denoiser(first, data.training, model, seed_plan)
    label_N, cluster_of_place = partition_of(data, setup, seed)
    experts = [build_expert(model, seed=seed) for _ in range(setup.num_experts)]
    for expert in experts:
        expert.load_state_dict(first.state_dict())
    report("experts")
    own = [data.training.only(np.flatnonzero(label_N == k)) for k in range(setup.num_experts)]
    batch_size = setup.batch_size // setup.num_experts
    # Seeds of experts are 1000 apart from the common seed's and of other runs'.
    plan = _plan(setup, spent.expert_steps, batch_size, 1000 * (seed + 1))
    train_together(experts, own, model, plan)
    report("router")
    router = train_router(data.training, label_N, model, regime, setup.num_experts, seed)
    return TrainedSide(experts, router, cluster_of_place, spent)


def budget_of(regime: Regime, setup: Setup) -> Spent:
    """How the regime's FLOPs are spent. The budget is the monolith's at the regime's own batch size."""
    model, count = model_of(regime), setup.num_experts
    budget = regime.steps * expert_step_flops(model, regime.batch_size)
    if count == 1:
        whole = expert_step_flops(model, setup.batch_size)
        steps = regime.steps * regime.batch_size // setup.batch_size
        return Spent(budget, 0.0, steps * whole, 0.0, steps, 0)
    one = expert_step_flops(model, setup.batch_size // count)
    seed_steps = round(setup.seed_share * budget / one)
    router = regime.router.steps * router_step_flops(model, count, regime.router.batch_size)
    left = budget - seed_steps * one - router
    steps = int(left / (count * one))
    if steps < 1:
        raise LocalError(f"seed and router take the whole budget of {budget:.3g} FLOPs")
    return Spent(budget, seed_steps * one, steps * count * one, router, steps, seed_steps)


def partition_of(
    data: QualityData, setup: Setup, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(training clips,) expert of every clip, and (places,) expert of every place."""
    cluster_of_place = data.cluster_of_place(setup.num_experts, seed=0)
    if setup.partition == Partition.RANDOM:
        die = np.random.default_rng(seed)
        return die.integers(0, setup.num_experts, len(data.training)), cluster_of_place
    return cluster_of_place[data.training.place], cluster_of_place


def train_router(
    clips: Clips,
    label_N: NDArray[np.int64],
    model: ModelSpec,
    regime: Regime,
    num_experts: int,
    seed: int,
) -> Router:
    """The classifier p(expert | x_t, t, text), on all clips at uniform times."""
    router = build_router(model, num_experts, seed=seed)
    labelled = replace(clips, place=label_N)

    def losses(batch: Batch) -> Tensor:
        logits_BK = router(batch.x_t_BCTHW, batch.t_B, batch.text_pooled_BD)
        return functional.cross_entropy(logits_BK, batch.label_B, reduction="none")

    plan = TrainPlan(
        steps=regime.router.steps,
        batch_size=regime.router.batch_size,
        learning_rate=regime.router.learning_rate,
        seed=seed,
    )
    train(router, losses, labelled, plan, _uniform, model.router.text_dropout)
    return router


def _uniform(normal_B: Tensor) -> Tensor:
    """Times uniform in 0..1 from standard normal numbers."""
    return torch.special.ndtr(normal_B)


def _plan(setup: Setup, steps: int, batch_size: int, seed: int) -> TrainPlan:
    return TrainPlan(
        steps=steps,
        batch_size=batch_size,
        learning_rate=setup.learning_rate,
        seed=seed,
        ema_decay=setup.ema_decay,
    )
