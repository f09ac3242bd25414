"""The aesthetic score of clips, where its weights are at hand. Owns the score and saying plainly when there is none.

LAION's first predictor: a linear head on the unit image embedding of CLIP ViT-L/14, trained on people's ratings from 1
to 10. No package ships these weights, so a user names a folder: a CLIP model as transformers saves it, and the head as
`aesthetic.safetensors` with `weight` (1, D) and `bias` (1,).
Shapes: N clips, T frames, H height, W width, D embedding width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kinoswarm_protocol.errors import LocalError

HEAD = "aesthetic.safetensors"
_FILES = ("config.json", "model.safetensors", "preprocessor_config.json", HEAD)
_BATCH = 16


@dataclass(frozen=True)
class NotAtHand:
    """A figure that could not be measured here."""

    reason: str
    """What is missing and how to get it."""


@dataclass(frozen=True)
class Aesthetic:
    """A loaded predictor."""

    processor: Any
    network: Any
    weight_1D: torch.Tensor
    bias_1: torch.Tensor

    @torch.inference_mode()
    def scores(self, clips_NTHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Score of each clip's middle frame, shape (N,)."""
        frames = clips_NTHWC[:, clips_NTHWC.shape[1] // 2]
        found = []
        for start in range(0, len(frames), _BATCH):
            pixels = self.processor(list(frames[start : start + _BATCH]), return_tensors="pt")
            embedded_BD = self.network(**pixels).image_embeds
            unit_BD = torch.nn.functional.normalize(embedded_BD, dim=1)
            found.append((unit_BD @ self.weight_1D.T + self.bias_1).squeeze(1))
        return torch.cat(found).double().numpy()


def aesthetic_predictor(folder: Path | None) -> Aesthetic | NotAtHand:
    """The predictor in `folder`. Raises LocalError when the head there does not fit the model there."""
    if folder is None:
        return NotAtHand(
            "no CLIP weights were named; give a folder with a CLIP model as transformers saves it and the head as "
            f"{HEAD}"
        )
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        return NotAtHand(f"{folder} lacks {', '.join(missing)}")
    from safetensors.torch import load_file
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    network = CLIPVisionModelWithProjection.from_pretrained(
        folder, local_files_only=True, use_safetensors=True
    )
    head = load_file(folder / HEAD)
    shapes = {name: tuple(tensor.shape) for name, tensor in head.items()}
    width = network.config.projection_dim
    if shapes != {"weight": (1, width), "bias": (1,)}:
        raise LocalError(
            f"{HEAD} holds {shapes}; a head for this CLIP model is weight (1, {width}) and bias (1,)"
        )
    processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    return Aesthetic(processor, network.eval(), head["weight"].float(), head["bias"].float())
