"""What a mode means for an expert that is to be trained. Owns the three of them: full, 8-bit Adam, LoRA.

A mode decides which weights learn, what the optimizer keeps, and how the trained weights are read back.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from kinoswarm_model import left_out
from kinoswarm_model.checkpoints import weights_of
from kinoswarm_model.devices import PrecisionChoice, training_dtype
from kinoswarm_model.lora import RATE_FACTOR, add_adapters, keep_frozen_in, merged_weights
from kinoswarm_model.training import OptimizerSettings
from kinoswarm_protocol.specs import ModeSpec


def prepare_for(
    network: nn.Module,
    mode: ModeSpec,
    seed: int,
    device: torch.device,
    precision: PrecisionChoice = "auto",
) -> None:
    """Make the network learn as the mode says; its function is unchanged. Raises LocalError without the library."""
    if mode.name == "lora":
        add_adapters(network, mode.rank, seed)
        keep_frozen_in(network, training_dtype(device, precision))


def settings_for(mode: ModeSpec, settings: OptimizerSettings) -> OptimizerSettings:
    """The recipe's settings as the mode bends them."""
    if mode.name == "lora":
        return replace(settings, learning_rate=RATE_FACTOR * settings.learning_rate)
    if mode.name == "adam8bit":
        return replace(settings, optimizer="adamw8bit")
    return settings


def trained_weights(
    network: nn.Module, mode: ModeSpec, base: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Whole weights under their checkpoint names, float32 on the CPU; `base` is what the training started from."""
    if mode.name == "lora":
        return merged_weights(network, base)
    return weights_of(network)


def is_installed(mode: ModeSpec) -> bool:
    """Whether the library that the mode needs is here."""
    needed = {"lora": "peft", "adam8bit": "torchao"}.get(mode.name)
    return needed is None or left_out.is_installed(needed)
