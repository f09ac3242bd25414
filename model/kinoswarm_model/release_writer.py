"""Writes a release folder from checkpoints. Owns the order in which its files appear; release_job.py adds samples."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from kinoswarm_model.checkpoints import encode_tensors, write_atomic
from kinoswarm_model.data.text import TextFolders, copy_text_encoder
from kinoswarm_model.expert_set import METADATA, ExpertSet
from kinoswarm_model.release_configs import config_files
from kinoswarm_model.release_layout import (
    INFO,
    ROUTER_WEIGHTS,
    VAE,
    VAE_CONFIG,
    VAE_WEIGHTS,
    encode_info,
    text_folders,
)
from kinoswarm_model.vae import CONFIG, WEIGHTS
from kinoswarm_protocol.errors import LocalError


def write_release(
    folder: Path,
    experts: ExpertSet,
    router: Mapping[str, Tensor],
    text_encoder: TextFolders | None,
    vae: Path | None = None,
) -> None:
    """Write everything but the model card and samples; kinoswarm.json comes last.

    Experts' checkpoints are checked against the model on the way. Raises LocalError, MalformedBytes, LimitExceeded,
    BadTensors or NotFinite.
    """
    experts.write(folder)
    write_atomic(folder / ROUTER_WEIGHTS, encode_tensors(router, METADATA))
    copy_text_encoder(text_folders(folder), text_encoder)
    if experts.info.model.vae is not None:
        _copy_vae(folder, vae)
    for path, raw in config_files(experts.info).items():
        write_atomic(folder / path, raw)
    write_atomic(folder / INFO, encode_info(experts.info))


def _copy_vae(folder: Path, source: Path | None) -> None:
    """Raises LocalError when the model needs a VAE and none is there."""
    if source is None:
        raise LocalError("this model makes latents, and its VAE's folder was not named")
    (folder / VAE).mkdir(parents=True, exist_ok=True)
    for target, name in ((VAE_CONFIG, CONFIG), (VAE_WEIGHTS, WEIGHTS)):
        if (source / name).resolve() != (folder / target).resolve():
            shutil.copyfile(source / name, folder / target)


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
