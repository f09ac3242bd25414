"""The optimizers of a segment behind one interface. Owns which there are, and how their state becomes plain tensors.

Resume points hold `state_tensors`; a fresh optimizer of the same kind that `load`s them goes on as if never stopped.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from kinoswarm_model.left_out import bring_back
from kinoswarm_protocol.errors import LocalError

OptimizerName = Literal["adamw", "adamw8bit"]

Parameters = Mapping[str, nn.Parameter]


class Optimizer(Protocol):
    """AdamW over named parameters, whatever its moments are kept in."""

    def step(self, learning_rate: float) -> None:
        """Apply the gradients and drop them."""
        ...

    def drop_gradients(self) -> None:
        """Forget the gradients of a step that is not applied."""
        ...

    def state_tensors(self) -> dict[str, Tensor]:
        """Moments by parameter, under names that belong to this kind of optimizer; empty before the first step."""
        ...

    def load(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Continue after `step` steps from what state_tensors gave."""
        ...


class AdamW:
    """PyTorch's fused AdamW with both moments in float32: 8 bytes a parameter."""

    def __init__(
        self, parameters: Parameters, betas: tuple[float, float], weight_decay: float
    ) -> None:
        self._parameters = parameters
        self._inner = torch.optim.AdamW(
            parameters.values(), betas=betas, weight_decay=weight_decay, fused=True
        )

    def step(self, learning_rate: float) -> None:
        for group in self._inner.param_groups:
            group["lr"] = learning_rate
        self._inner.step()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        self._inner.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        tensors = {}
        for name, parameter in self._parameters.items():
            moments = self._inner.state[parameter]
            if moments:
                tensors[f"m:{name}"] = moments["exp_avg"]
                tensors[f"v:{name}"] = moments["exp_avg_sq"]
        return tensors

    def load(self, tensors: Mapping[str, Tensor], step: int) -> None:
        for name, parameter in self._parameters.items():
            if f"m:{name}" not in tensors:
                continue
            self._inner.state[parameter] = {
                "step": torch.tensor(float(step), device=parameter.device),
                "exp_avg": tensors[f"m:{name}"].to(parameter.device),
                "exp_avg_sq": tensors[f"v:{name}"].to(parameter.device),
            }


class AdamW8bit:
    """torchao's AdamW with block-wise 8-bit moments (arXiv 2110.02861): 2 bytes a parameter.

    Tensors under 4,096 numbers keep float32 moments, as in bitsandbytes. Its step is run without torch.compile, which
    would need a compiler on the volunteer's machine; one tensor's moments at a time are in float32.
    """

    def __init__(
        self, parameters: Parameters, betas: tuple[float, float], weight_decay: float
    ) -> None:
        self._parameters = parameters
        self._inner = _torchao_adamw(parameters, betas, weight_decay)

    def step(self, learning_rate: float) -> None:
        for group in self._inner.param_groups:
            group["lr"].fill_(learning_rate)
        with torch.compiler.set_stance("force_eager"):
            self._inner.step()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        self._inner.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            for moment, value in self._inner.state[parameter].items():
                if moment in _MOMENTS:
                    tensors |= {f"{moment}{part}:{name}": t for part, t in _parts(value).items()}
        return tensors

    def load(self, tensors: Mapping[str, Tensor], step: int) -> None:
        for name, parameter in self._parameters.items():
            moments = {
                moment: self._inner._new_buffer(parameter, signed)
                for moment, signed in _MOMENTS.items()
            }
            if not any(
                f"{moment}{part}:{name}" in tensors
                for moment, m in moments.items()
                for part in _parts(m)
            ):
                continue
            for moment, value in moments.items():
                for part, tensor in _parts(value).items():
                    tensor.copy_(tensors[f"{moment}{part}:{name}"])
            self._inner.state[parameter] = {"step": torch.tensor(float(step)), **moments}


_MOMENTS = {"exp_avg": True, "exp_avg_sq": False}
"""Whether each can be negative."""


def _parts(moment: Any) -> dict[str, Tensor]:
    """The plain tensors that a moment is made of; its table of levels is the same everywhere."""
    if hasattr(moment, "codes"):
        return {".codes": moment.codes, ".scale": moment.scale}
    return {"": moment}


def _torchao_adamw(parameters: Parameters, betas: tuple[float, float], weight_decay: float) -> Any:
    bring_back("torchao")
    try:
        from torchao.optim import AdamW8bit as Torchao
    except ImportError as error:
        raise LocalError("mode 8bit-adam needs torchao: pip install 'kinoswarm[modes]'") from error
    return Torchao(list(parameters.values()), betas=betas, weight_decay=weight_decay)


def build_optimizer(
    name: OptimizerName,
    parameters: Parameters,
    betas: tuple[float, float],
    weight_decay: float,
) -> Optimizer:
    """An optimizer before its first step. Raises LocalError when its library is not installed."""
    kinds: dict[OptimizerName, type[AdamW] | type[AdamW8bit]] = {
        "adamw": AdamW,
        "adamw8bit": AdamW8bit,
    }
    return kinds[name](parameters, betas, weight_decay)
