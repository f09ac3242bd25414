"""Trains K experts of one class side by side, as one batched network. Owns the stacked optimizer step.

Small batches waste a core on call overhead; a network whose every weight has a leading expert dimension (torch.func)
does K small steps at the price of one large one. Each expert sees its own clips, noise, gradient norm and AdamW
moments, so the result is that of training them apart, which a test compares.
Shapes: K experts, B batch of one expert.
"""

from collections.abc import Callable, Sequence

import torch
from benchmarks.quality.clips import Clips
from benchmarks.quality.training import TrainPlan, batch_of, optimizer_settings
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from kinoswarm_model.experts import Expert
from kinoswarm_model.flow import losses_of, times_of
from kinoswarm_model.training import learning_rate
from kinoswarm_model.training_data import Batch
from kinoswarm_protocol.specs import ModelSpec


def train_together(
    experts: Sequence[Expert], clips_by_expert: Sequence[Clips], model: ModelSpec, plan: TrainPlan
) -> None:
    """Train in place, expert k on clips_by_expert[k] with seed plan.seed + k, each as `train_denoiser` would."""
    weights, _ = stack_module_state(list(experts))
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}
    settings = optimizer_settings(plan)
    optimizer = torch.optim.AdamW(
        leaves.values(), lr=plan.learning_rate, betas=settings.betas, weight_decay=0.0, fused=True
    )
    chances = [torch.Generator().manual_seed(plan.seed + k) for k in range(len(experts))]
    predict = _batched(experts[0])
    for step in range(plan.steps):
        batches = [
            _draw(clips, plan, model, chance)
            for clips, chance in zip(clips_by_expert, chances, strict=True)
        ]
        _losses(predict, leaves, batches, model).backward()  # type: ignore[no-untyped-call]
        _clip_each(list(leaves.values()), settings.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    for k, expert in enumerate(experts):
        expert.load_state_dict(
            {name: leaf[k].detach() for name, leaf in leaves.items()}, strict=False
        )
        expert.eval()


Predict = Callable[[dict[str, Tensor], Tensor, Tensor, Tensor, Tensor], Tensor]


def _batched(base: Expert) -> Predict:
    """One expert's call, over a leading dimension of weights and inputs alike."""

    def one(
        weights: dict[str, Tensor], x_t: Tensor, t: Tensor, tokens: Tensor, mask: Tensor
    ) -> Tensor:
        # The fused CPU attention can't be batched over experts; the plain formula can, and is as fast at few tokens.
        with sdpa_kernel(SDPBackend.MATH):
            predicted: Tensor = functional_call(base, weights, (x_t, t, tokens, mask))
        return predicted

    batched: Predict = vmap(one)
    return batched


def _draw(clips: Clips, plan: TrainPlan, model: ModelSpec, chance: torch.Generator) -> Batch:
    rows = torch.randint(len(clips), (plan.batch_size,), generator=chance)
    recipe = model.recipe
    return batch_of(clips, rows, lambda n: times_of(n, recipe), recipe.text_dropout, chance)


def _losses(
    predict: Predict, leaves: dict[str, Tensor], batches: Sequence[Batch], model: ModelSpec
) -> Tensor:
    """Sum over experts of their mean losses: each expert's gradient is that of its own mean."""
    x_0, eps, t = (
        torch.stack(parts)
        for parts in (
            [batch.x_0_BCTHW for batch in batches],
            [batch.eps_BCTHW for batch in batches],
            [batch.t_B for batch in batches],
        )
    )
    x_t = torch.stack([batch.x_t_BCTHW for batch in batches])
    tokens = torch.stack([batch.text_tokens_BLD for batch in batches])
    mask = torch.stack([batch.text_mask_BL for batch in batches])
    predicted = predict(leaves, x_t, t, tokens, mask)
    flat = (tensor.flatten(0, 1) for tensor in (predicted, x_0, eps, t))
    return losses_of(*flat, model.recipe).sum() / len(batches[0])


def _clip_each(leaves: Sequence[Tensor], most: float) -> None:
    """Scale every expert's gradient down to norm `most`, as clip_grad_norm_ does for one."""
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    squares_K = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0)
    scale_K = (most / (squares_K.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale_K.view(-1, *[1] * (gradient.dim() - 1)))
