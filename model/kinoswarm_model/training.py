"""The optimizer loop of a segment. Owns steps, schedule and memory fallbacks; jobs decide what is trained and saved.

Every segment starts with fresh optimizer state, a linear warm-up, and ends with the learning rate falling to zero, so
that the published weights are settled ones and deltas of several volunteers average well.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kinoswarm_model.devices import PrecisionChoice, training_dtype
from kinoswarm_model.optimizers import OptimizerName, build_optimizer
from kinoswarm_model.training_data import Batch
from kinoswarm_protocol.errors import LocalError

LossesOf = Callable[[Batch], Tensor]
"""Losses of every sample of a batch, shape (B,), with a graph."""

DECAY_SHARE = 0.5
"""The learning rate falls linearly to zero over this last share of a segment."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW and its schedule over `total_steps`."""

    learning_rate: float
    warmup_steps: int
    total_steps: int
    weight_decay: float
    betas: tuple[float, float]
    grad_clip: float
    optimizer: OptimizerName = "adamw"
    precision: PrecisionChoice = "auto"
    """Of matrix products."""
    decay_share: float = DECAY_SHARE


class OutOfMemory(LocalError):
    """Even one sample at a time with activation checkpointing does not fit."""


class Trainer:
    """A module with its optimizer. `step` counts finished optimizer steps."""

    def __init__(
        self,
        module: nn.Module,
        losses_of: LossesOf,
        settings: OptimizerSettings,
        device: torch.device,
        micro_batch: int = 0,
        *,
        adapt: bool = True,
    ) -> None:
        """`adapt`: make the micro-batch smaller when memory runs out; otherwise that is raised."""
        self._adapt = adapt
        self.module = module.to(device).train()
        self.step = 0
        self.micro_batch = micro_batch
        self._losses_of = losses_of
        self._settings = settings
        self._device = device
        self._autocast = training_dtype(device, settings.precision)
        self._parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._optimizer = build_optimizer(
            settings.optimizer, self._parameters, settings.betas, settings.weight_decay
        )

    def train_step(self, batch: Batch) -> float:
        """One optimizer step on the mean loss of `batch`; returns that loss.

        When memory runs out the step is repeated with half the micro-batch, then with activation checkpointing.
        Raises OutOfMemory when nothing is left to try.
        """
        while True:
            try:
                loss = self._accumulate(batch)
                break
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not self._adapt or not is_out_of_memory(error):
                    raise
            self._optimizer.drop_gradients()
            self._use_less_memory(len(batch))
        self._update()
        self.step += 1
        return loss

    def state(self) -> dict[str, Tensor]:
        """Trained weights and optimizer moments by name, for a resume point."""
        weights = {f"w:{name}": parameter.data for name, parameter in self._parameters.items()}
        return weights | self._optimizer.state_tensors()

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Continue from a resume point as if never interrupted."""
        for name, parameter in self._parameters.items():
            parameter.data.copy_(tensors[f"w:{name}"])
        self._optimizer.load(tensors, step)
        self.step = step

    def _accumulate(self, batch: Batch) -> float:
        size = self.micro_batch or len(batch)
        total = torch.zeros((), device=self._device)
        for start in range(0, len(batch), size):
            part = batch.part(start, min(start + size, len(batch)), self._device)
            with torch.autocast(
                self._device.type, torch.bfloat16, enabled=self._autocast == torch.bfloat16
            ):
                loss = self._losses_of(part).sum() / len(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return float(total)

    def _update(self) -> None:
        settings = self._settings
        nn.utils.clip_grad_norm_(self._parameters.values(), settings.grad_clip)
        self._optimizer.step(learning_rate(self.step, settings))

    def _use_less_memory(self, batch_size: int) -> None:
        size = self.micro_batch or batch_size
        if size > 1:
            self.micro_batch = max(1, size // 2)
        elif not checkpoints_activations(self.module):
            checkpoint_activations(self.module)
        else:
            raise OutOfMemory(
                "one clip at a time with activation checkpointing does not fit in this device's memory; it needs a "
                "device with more memory, or a mode that trains fewer weights"
            )


def learning_rate(step: int, settings: OptimizerSettings) -> float:
    """Rate of optimizer step `step` (from 0): linear warm-up, constant, linear decay towards zero at the end."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    left = (settings.total_steps - step) / max(1.0, settings.decay_share * settings.total_steps)
    return settings.learning_rate * warm * min(1.0, left)


def ends_mean(losses: list[float]) -> tuple[float, float]:
    """Means over the first and the last tenth of the steps."""
    tenth = max(1, len(losses) // 10)
    return sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def checkpointing_modules(module: nn.Module) -> Iterable[nn.Module]:
    """Sub-modules that can recompute activations in the backward pass."""
    return (part for part in module.modules() if hasattr(part, "gradient_checkpointing"))


def checkpoint_activations(module: nn.Module) -> None:
    """Trade a third more compute for activation memory; does not change what is trained beyond rounding."""
    for part in checkpointing_modules(module):
        part.gradient_checkpointing = True  # type: ignore[assignment]


def uses_checkpoints(module: nn.Module) -> bool:
    """Whether activation checkpointing is on anywhere in it."""
    return any(part.gradient_checkpointing for part in checkpointing_modules(module))


def checkpoints_activations(module: nn.Module) -> bool:
    """Whether activation checkpointing is on, or there is nothing to turn on."""
    return all(part.gradient_checkpointing for part in checkpointing_modules(module))
