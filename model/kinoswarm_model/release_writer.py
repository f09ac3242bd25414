"""Writes a release folder from checkpoints. Owns the order in which its files appear; release_job.py adds samples."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from kinoswarm_model.checkpoints import encode_tensors, read_checkpoint, write_atomic
from kinoswarm_model.data.text import copy_text_encoder
from kinoswarm_model.expert_set import ExpertSet
from kinoswarm_model.release_configs import config_files
from kinoswarm_model.release_layout import (
    INFO,
    ROUTER_WEIGHTS,
    TEXT_ENCODER,
    ReleaseInfo,
    encode_info,
)
from kinoswarm_model.router import router_shapes


def write_release(
    folder: Path,
    info: ReleaseInfo,
    expert_paths: Sequence[Path],
    router_path: Path,
    text_encoder: Path | None,
) -> None:
    """Write everything but the model card and samples; kinoswarm.json comes last.

    Every checkpoint is checked against the model on the way. Raises LocalError, MalformedBytes, LimitExceeded,
    BadTensors or NotFinite.
    """
    ExpertSet(info.model, list(expert_paths), torch.device("cpu")).write(folder)
    router = read_checkpoint(router_path, router_shapes(info.model, len(info.experts)))
    write_atomic(folder / ROUTER_WEIGHTS, encode_tensors(router, {"format": "pt"}))
    copy_text_encoder(folder / TEXT_ENCODER, text_encoder)
    for path, raw in config_files(info).items():
        write_atomic(folder / path, raw)
    write_atomic(folder / INFO, encode_info(info))


def files_under(folder: Path) -> list[str]:
    """Relative paths of every file of a folder, sorted, with forward slashes."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def sync_files(folder: Path) -> None:
    """Make every file under a folder survive a power cut, before the folder is renamed into place."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
