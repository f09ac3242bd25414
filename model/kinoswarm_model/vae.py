"""Video VAEs of diffusers: pixels to latents and back. Owns the allow-list, loading and geometry; no training.

A folder is foreign: its class must be one of the list, its numbers are bounded and its parameters counted on the meta
device before memory is taken, and weights are safetensors. The posterior's mode is used, so that equal pixels give
equal latents. Shapes: B clips, C channels, T frames, H height, W width.
"""

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from kinoswarm_model.checkpoints import float_weights
from kinoswarm_model.clip_codecs import Decode, pixels_of
from kinoswarm_model.release_layout import read_object
from kinoswarm_protocol.errors import LimitExceeded, LocalError, MalformedBytes, VersionMismatch
from kinoswarm_protocol.specs import VaeClass, VaeSpec

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
_MAX_PARAMETERS = 2_000_000_000
_MAX_NUMBER = 8_192
_MAX_COUNT = 64
"""Of layers, blocks and list entries: even the meta device takes time for each."""


@dataclass(frozen=True)
class Steps:
    """How many frames, and rows and columns, of pixels go into one of the latents."""

    frame_step: int
    pixel_step: int
    channels: int


class VideoVae:
    """A loaded VAE on one device; latents are as the network gives them, without any scaling."""

    def __init__(self, network: Any, class_name: VaeClass) -> None:
        self._network = network
        self.class_name = class_name

    @classmethod
    def load(cls, folder: Path) -> "VideoVae":
        """From a folder with config.json and safetensors weights, or its `vae` sub-folder.

        Raises LocalError for what is missing, VersionMismatch for another class, MalformedBytes, LimitExceeded,
        BadTensors or NotFinite for foreign contents.
        """
        place = vae_folder(folder)
        config = read_object(place / CONFIG)
        name = _allowed(config.get("_class_name"), place)
        network = _built(name, config)
        shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
        network.load_state_dict(float_weights(place / WEIGHTS, shapes))
        return cls(network.eval().requires_grad_(False), name)

    def to(self, device: torch.device) -> "VideoVae":
        """Compute there from now on."""
        self._network.to(device)
        return self

    @torch.no_grad()
    def encode(self, pixels_BCTHW: Tensor) -> Tensor:
        """Latents (B, C, T', H', W'), float32 on the CPU, of bytes (B, 3, T, H, W)."""
        device = next(self._network.parameters()).device
        x_BCTHW = pixels_BCTHW.to(device).float() / 127.5 - 1.0
        latents: Tensor = self._network.encode(x_BCTHW).latent_dist.mode()
        return latents.float().cpu()

    @torch.no_grad()
    def decode(self, latents_BCTHW: Tensor) -> Tensor:
        """Pixels around -1..1, (B, 3, T, H, W); one clip at a time, because decoding takes the most memory of all."""
        clips = [self._network.decode(one).sample.float() for one in torch.split(latents_BCTHW, 1)]
        return torch.cat(clips)

    def steps(self, frames: int, height: int, width: int) -> Steps:
        """The steps for clips of these pixels, found by encoding a black one and decoding it again.

        Raises LocalError when such clips do not come back in the same size.
        """
        black = torch.zeros(1, 3, frames, height, width, dtype=torch.uint8)
        try:
            latents = self.encode(black)
            back = self.decode(latents.to(next(self._network.parameters()).device))
        except (RuntimeError, ValueError) as error:
            raise LocalError(_no_fit(self.class_name, frames, height, width)) from error
        if tuple(back.shape[2:]) != (frames, height, width):
            raise LocalError(_no_fit(self.class_name, frames, height, width))
        _, channels, latent_frames, latent_height, _ = latents.shape
        step = (frames - 1) // (latent_frames - 1) if latent_frames > 1 else 1
        return Steps(step, height // latent_height, channels)


def decoder(vae: VideoVae, spec: VaeSpec) -> Decode:
    """From what the sampler gives to pixels' bytes: scaled back channel by channel, then decoded."""

    def decode(x_BCTHW: Tensor) -> Any:
        shape = (1, -1, 1, 1, 1)
        std = torch.tensor(spec.std, device=x_BCTHW.device).view(shape)
        mean = torch.tensor(spec.mean, device=x_BCTHW.device).view(shape)
        return pixels_of(vae.decode(x_BCTHW.float() * std + mean))

    return decode


def _allowed(name: object, place: Path) -> VaeClass:
    known: tuple[VaeClass, ...] = get_args(VaeClass)
    for one in known:
        if one == name:
            return one
    raise VersionMismatch(
        f"{place} holds a {str(name)[:80]!r}; this version decodes {', '.join(known)}"
    )


def named_vae(name: str) -> Path:
    """A folder of this name, or the folder into which the hub's repository of this name was downloaded.

    Only the VAE's configuration and safetensors are downloaded. Raises LocalError when there is neither.
    """
    if Path(name).exists() or not _HUB_NAME.fullmatch(name):
        return vae_folder(Path(name))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = [f"{place}{file}" for place in ("", "vae/") for file in (CONFIG, WEIGHTS)]
    try:
        return vae_folder(Path(snapshot_download(name, allow_patterns=wanted)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise LocalError(
            f"there is no folder {name}, and the hub's {name} could not be downloaded ({str(error)[:200]})"
        ) from error


def vae_folder(folder: Path) -> Path:
    """The folder that holds the VAE: this one, or `vae` in a pipeline's. Raises LocalError saying what is missing."""
    for place in (folder, folder / "vae"):
        if (place / CONFIG).is_file() and (place / WEIGHTS).is_file():
            return place
    raise LocalError(
        f"{folder} holds no VAE: {CONFIG} and {WEIGHTS} are needed there or in its vae folder, as in "
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers on huggingface.co"
    )


def _built(name: str, config: dict[str, Any]) -> nn.Module:
    import diffusers

    kind: type[nn.Module] = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    for key, value in settings.items():
        if key == "self" or key not in known:
            raise MalformedBytes(f"{name} has no setting {key[:80]!r}")
        _check_value(key, value)
    try:
        with torch.device("meta"):
            parameters = sum(p.numel() for p in kind(**settings).parameters())
        if parameters > _MAX_PARAMETERS:
            raise LimitExceeded(f"a VAE of {parameters} parameters; at most {_MAX_PARAMETERS}")
        with torch.random.fork_rng(devices=[]):
            return kind(**settings)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        AssertionError,
        IndexError,
        ZeroDivisionError,
    ) as error:
        raise MalformedBytes(f"{name} can't be built: {str(error)[:200]}") from error


def _check_value(key: str, value: object) -> None:
    """Numbers and lists are bounded before anything is built from them."""
    many = any(word in key for word in ("num", "layers", "blocks"))
    values = value if isinstance(value, list) else [value]
    if len(values) > 4 * _MAX_COUNT:
        raise LimitExceeded(f"{key} lists {len(values)} values")
    for number in values:
        if isinstance(number, list):
            _check_value(key, number)
        elif isinstance(number, int) and abs(number) > (_MAX_COUNT if many else _MAX_NUMBER):
            raise LimitExceeded(f"{key} is {number}; at most {_MAX_COUNT if many else _MAX_NUMBER}")


def _no_fit(name: str, frames: int, height: int, width: int) -> str:
    return (
        f"{name} can't keep clips of {frames} frames of {height}x{width}: take 1 frame more than a multiple of 4 "
        "(8 for LTX), and sizes that are multiples of 8 (32 for LTX)"
    )
