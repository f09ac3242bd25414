"""A release folder, checked and opened. Owns the order of checks; generation, pipeline and evaluation start here."""

from dataclasses import dataclass
from pathlib import Path

import torch

from kinoswarm_model.checkpoints import read_checkpoint
from kinoswarm_model.clip_codecs import Decode, pixels_of
from kinoswarm_model.clip_length import model_of_length
from kinoswarm_model.data.text import TextEncoder, TextFolders
from kinoswarm_model.expert_set import ExpertSet
from kinoswarm_model.release_configs import check_configs
from kinoswarm_model.release_layout import ROUTER_WEIGHTS, VAE, ReleaseInfo, read_info, text_folders
from kinoswarm_model.router import Router, build_router, router_shapes
from kinoswarm_model.sampler import RoutedModel
from kinoswarm_model.vae import VideoVae, decoder
from kinoswarm_protocol.errors import MalformedBytes
from kinoswarm_protocol.specs import ModelSpec


@dataclass(frozen=True)
class Release:
    """An opened release: everything that sampling needs."""

    folder: Path
    info: ReleaseInfo
    experts: ExpertSet
    router: Router
    text: TextEncoder
    vae: VideoVae | None = None

    def routed(self, num_frames: int | None = None) -> RoutedModel:
        """What the common sampler takes, for clips of this length. Raises LocalError for one that can't be made."""
        return RoutedModel(
            model=model_of_length(self.info.model, num_frames),
            expert=self.experts,
            available_K=self.experts.available_K,
            router=self.router,
            decode=decoder_of(self.info.model, self.vae),
        )

    def move(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Sample on this device from now on, with experts in this type; the router stays float32."""
        self.experts.place(device, dtype)
        self.router.to(device)
        if self.vae is not None:
            self.vae.to(device)


def open_release(folder: Path, *, allow_missing_experts: bool = False) -> Release:
    """Check a release folder and open it; experts are read (and their tensors checked) on first use.

    With `allow_missing_experts` the router goes around those whose weights are not there.

    Raises LocalError for missing files, MalformedBytes, LimitExceeded, BadTensors or NotFinite for foreign contents,
    VersionMismatch for what this version can't sample.
    """
    info = read_info(folder, allow_missing_experts=allow_missing_experts)
    check_configs(folder, info)
    return Release(
        folder=folder,
        info=info,
        experts=ExpertSet.of_release(folder, info),
        router=read_router(folder / ROUTER_WEIGHTS, info),
        text=_read_text_encoder(text_folders(folder), info),
        vae=VideoVae.load(folder / VAE) if info.model.vae is not None else None,
    )


def decoder_of(model: ModelSpec, vae: VideoVae | None) -> Decode:
    """How what experts make becomes pixels."""
    if model.vae is None or vae is None:
        return pixels_of
    return decoder(vae, model.vae)


def read_router(path: Path, info: ReleaseInfo) -> Router:
    """The router of a checkpoint file, checked against kinoswarm.json."""
    router = build_router(info.model, len(info.experts), seed=0)
    router.load_state_dict(read_checkpoint(path, router_shapes(info.model, len(info.experts))))
    return router.eval().requires_grad_(False)


def _read_text_encoder(folders: TextFolders, info: ReleaseInfo) -> TextEncoder:
    try:
        return TextEncoder.load(folders, info.model.text.max_tokens)
    except Exception as error:
        raise MalformedBytes(
            f"the text encoder in {folders.network} is damaged: {str(error)[:200]}; run `kinoswarm download` again"
        ) from error
