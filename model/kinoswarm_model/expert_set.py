"""The experts of a release as one component, loaded one by one on first use. Owns lazy loading, eviction and saving.

A router seldom needs all experts at once, and a release may hold more than memory does: experts are mappings of their
files until a device or a type needs a copy, and the least recently used go when there are too many. One component
instead of one per expert, because diffusers does not load pipelines whose components vary in number.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from kinoswarm_model.checkpoints import (
    encode_tensors,
    mapped_checkpoint,
    read_checkpoint,
    weights_of,
    write_atomic,
)
from kinoswarm_model.experts import Expert, expert_holding, tensor_shapes
from kinoswarm_model.release_layout import ReleaseInfo, expert_weights
from kinoswarm_protocol.errors import LocalError

METADATA = {"format": "pt"}
"""diffusers and transformers refuse safetensors without it."""

_CPU = torch.device("cpu")


class ExpertSet(nn.Module):
    """Experts by cluster; call it with an index. Experts that were not asked for take no memory."""

    def __init__(self, info: ReleaseInfo, paths: Sequence[Path]) -> None:
        super().__init__()
        self.info = info
        self._paths = list(paths)
        self._shapes = tensor_shapes(info.model)
        self._checked: set[int] = set()
        self._most: int | None = None
        self.device, self.dtype = _CPU, torch.float32
        self.loaded = nn.ModuleDict()
        """By index as text, the least recently used first."""

    @classmethod
    def of_release(cls, folder: Path, info: ReleaseInfo) -> "ExpertSet":
        """The experts of a checked release folder, on the CPU."""
        return cls(info, [folder / expert_weights(index) for index in range(len(info.experts))])

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def available_K(self) -> list[bool]:
        """Which experts' files are here."""
        return [path.is_file() for path in self._paths]

    def keep_at_most(self, most: int | None) -> None:
        """Hold no more experts than this in memory, at least 1; None is all. One that is evicted is read from its file
        again when it is needed: changes of its weights are lost."""
        if most is not None and most < 1:
            raise LocalError(f"at most {most} experts in memory: it must be at least 1")
        self._most = most
        self._evict()

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        """Hold experts here and in this type from now on; those that are loaded follow."""
        self.device, self.dtype = device, dtype
        for expert in self.loaded.values():
            _move(expert, device, dtype)

    def forward(self, index: int) -> Expert:
        """The expert of a cluster. Raises LocalError, MalformedBytes, BadTensors or NotFinite for a bad file."""
        name = str(index)
        if name in self.loaded:
            self.loaded[name] = self.loaded.pop(name)
        else:
            self._evict(room_for=1)
            self.loaded[name] = self._read(index)
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
            whole = {name: tensor.float() for name, tensor in weights.items()}
            write_atomic(folder / expert_weights(index), encode_tensors(whole, METADATA))

    def _read(self, index: int) -> Expert:
        weights = mapped_checkpoint(
            self._paths[index], self._shapes, check_finite=index not in self._checked
        )
        self._checked.add(index)
        expert = expert_holding(weights, self.info.model).eval().requires_grad_(False)
        _move(expert, self.device, self.dtype)
        return expert

    def _evict(self, room_for: int = 0) -> None:
        while self._most is not None and len(self.loaded) > self._most - room_for:
            self.loaded.pop(next(iter(self.loaded)))


def _move(expert: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Rotary angles and the like keep their type: only weights are rounded."""
    expert.to(device)
    for parameter in expert.parameters():
        parameter.data = parameter.data.to(dtype)
