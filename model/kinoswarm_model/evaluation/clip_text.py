"""How well clips show what their captions say, by CLIP. Owns the score; the weights are a folder that the user names.

The mean over frames of 100 times the cosine between a frame's and the caption's embedding (CLIPSIM, arXiv 2104.14806).
Shapes: N clips, T frames, H height, W width, D embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kinoswarm_model.evaluation.aesthetic import NotAtHand
from kinoswarm_protocol.errors import LocalError

_FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json")
_BATCH = 4
_SHARE = 100.0


@dataclass(frozen=True)
class ClipText:
    """A loaded CLIP model."""

    images: Any
    tokenizer: Any
    network: Any

    @torch.inference_mode()
    def scores(
        self, clips_NTHWC: NDArray[np.uint8], captions: Sequence[str]
    ) -> NDArray[np.float64]:
        """Score of each clip with its caption, shape (N,)."""
        found = []
        for start in range(0, len(clips_NTHWC), _BATCH):
            clips = clips_NTHWC[start : start + _BATCH]
            texts_BD = self._texts(captions[start : start + _BATCH])
            frames = self.images(list(clips.reshape(-1, *clips.shape[2:])), return_tensors="pt")
            seen = self.network.get_image_features(**frames)
            frames_BTD = _unit(seen).view(*clips.shape[:2], -1)
            found.append(torch.einsum("btd,bd->bt", frames_BTD, texts_BD).mean(dim=1))
        return np.asarray(_SHARE * torch.cat(found).double().numpy())

    def _texts(self, captions: Sequence[str]) -> torch.Tensor:
        longest = int(self.network.config.text_config.max_position_embeddings)
        tokens = self.tokenizer(
            list(captions), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        return _unit(self.network.get_text_features(**tokens))


def _unit(found: Any) -> torch.Tensor:
    """Unit vectors; newer transformers wrap the embedding in an output object."""
    embedded = getattr(found, "pooler_output", found)
    return torch.nn.functional.normalize(embedded, dim=-1)


def clip_text(folder: Path | None) -> ClipText | NotAtHand:
    """The CLIP model in `folder`. Raises LocalError when it is damaged."""
    if folder is None:
        return NotAtHand(
            "no CLIP weights were named; download openai/clip-vit-base-patch32 (say) from huggingface.co into a folder "
            "and give it with --clip"
        )
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        return NotAtHand(f"{folder} lacks {', '.join(missing)}; download the model again")
    from safetensors import SafetensorError
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

    try:
        network = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        images = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        tokenizer = CLIPTokenizerFast.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise LocalError(f"the CLIP model in {folder} is damaged ({said})") from error
    return ClipText(images, tokenizer, network.eval())
