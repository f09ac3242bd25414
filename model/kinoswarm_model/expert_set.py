"""The experts of a release as one component, loaded one by one on first use. Owns lazy loading and saving.

A router seldom needs all experts at once, and a release may hold more than memory does. One component instead of one
per expert, because diffusers does not load pipelines whose components vary in number.
"""

from pathlib import Path

import torch
from torch import nn

from kinoswarm_model.checkpoints import encode_tensors, read_checkpoint, write_atomic
from kinoswarm_model.experts import Expert, build_expert, tensor_shapes
from kinoswarm_model.release_layout import expert_weights
from kinoswarm_protocol.specs import ModelSpec

_METADATA = {"format": "pt"}
"""diffusers and transformers refuse safetensors without it."""


class ExpertSet(nn.Module):
    """Experts by cluster; call it with an index. Experts that were not asked for take no memory."""

    def __init__(self, model: ModelSpec, paths: list[Path], device: torch.device) -> None:
        super().__init__()
        self._model = model
        self._paths = paths
        self._device = device
        self._shapes = tensor_shapes(model)
        self.loaded = nn.ModuleDict()

    @classmethod
    def of_release(cls, folder: Path, model: ModelSpec, num_experts: int) -> "ExpertSet":
        """The experts of a checked release folder, on the CPU."""
        paths = [folder / expert_weights(index) for index in range(num_experts)]
        return cls(model, paths, torch.device("cpu"))

    def __len__(self) -> int:
        return len(self._paths)

    def forward(self, index: int) -> Expert:
        """The expert of a cluster. Raises LocalError, MalformedBytes, BadTensors or NotFinite for a bad file."""
        name = str(index)
        if name not in self.loaded:
            expert = build_expert(self._model, seed=0)
            expert.network.load_state_dict(read_checkpoint(self._paths[index], self._shapes))
            self.loaded[name] = expert.eval().requires_grad_(False).to(self._device)
        found = self.loaded[name]
        assert isinstance(found, Expert)
        return found

    def move(self, device: torch.device) -> None:
        """Use this device for experts, those already loaded included."""
        self._device = device
        self.loaded.to(device)

    def write(self, folder: Path) -> None:
        """Write every expert's weights at its place in a release folder, one in memory at a time."""
        for index, path in enumerate(self._paths):
            weights = read_checkpoint(path, self._shapes)
            write_atomic(folder / expert_weights(index), encode_tensors(weights, _METADATA))
