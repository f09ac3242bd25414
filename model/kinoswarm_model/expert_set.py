"""The experts of a release as one component, loaded one by one on first use. Owns lazy loading and saving.

A router seldom needs all experts at once, and a release may hold more than memory does. One component instead of one
per expert, because diffusers does not load pipelines whose components vary in number.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from kinoswarm_model.checkpoints import encode_tensors, read_checkpoint, weights_of, write_atomic
from kinoswarm_model.experts import Expert, build_expert, tensor_shapes
from kinoswarm_model.release_layout import ReleaseInfo, expert_weights

METADATA = {"format": "pt"}
"""diffusers and transformers refuse safetensors without it."""


class ExpertSet(nn.Module):
    """Experts by cluster; call it with an index. Experts that were not asked for take no memory."""

    def __init__(self, info: ReleaseInfo, paths: Sequence[Path]) -> None:
        super().__init__()
        self.info = info
        self._paths = list(paths)
        self._shapes = tensor_shapes(info.model)
        self.loaded = nn.ModuleDict()
        # Follows `to` like any weight, so that experts loaded later land beside the others.
        self.register_buffer("place", torch.zeros(0), persistent=False)

    @classmethod
    def of_release(cls, folder: Path, info: ReleaseInfo) -> "ExpertSet":
        """The experts of a checked release folder, on the CPU."""
        return cls(info, [folder / expert_weights(index) for index in range(len(info.experts))])

    def __len__(self) -> int:
        return len(self._paths)

    def forward(self, index: int) -> Expert:
        """The expert of a cluster. Raises LocalError, MalformedBytes, BadTensors or NotFinite for a bad file."""
        name = str(index)
        if name not in self.loaded:
            expert = build_expert(self.info.model, seed=0)
            expert.network.load_state_dict(read_checkpoint(self._paths[index], self._shapes))
            expert.eval().requires_grad_(False)
            self.loaded[name] = expert.to(self.get_buffer("place").device)
        found = self.loaded[name]
        assert isinstance(found, Expert)
        return found

    def write(self, folder: Path) -> None:
        """Write every expert's weights at its place in a release folder; those not loaded one at a time."""
        for index, path in enumerate(self._paths):
            if str(index) in self.loaded:
                weights = weights_of(self(index).network)
            else:
                weights = read_checkpoint(path, self._shapes)
            write_atomic(folder / expert_weights(index), encode_tensors(weights, METADATA))
