"""Where everything lies in a release folder, and kinoswarm.json. Owns names and this file's type; free of torch.

A release folder is foreign: whoever reads it goes through `read_info` first, which bounds and checks the JSON and names
every file that is missing.
"""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from kinoswarm_model.data.text import NETWORK_FILES, TOKENIZER_FILES, TextFolders
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import LimitExceeded, LocalError, MalformedBytes
from kinoswarm_protocol.limits import KIB, MAX_CLUSTERS, MAX_SENTENCE
from kinoswarm_protocol.specs import (
    ClipSpec,
    Count,
    ExpertSpec,
    ModelSpec,
    ModeSpec,
    Name,
    Objective,
    RecipeSpec,
    RouterSpec,
    TextSpec,
    VaeSpec,
)

INFO = "kinoswarm.json"
MODEL_INDEX = "model_index.json"
MODEL_CARD = "README.md"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
ROUTER_CONFIG = "router/config.json"
ROUTER_WEIGHTS = "router/model.safetensors"
TEXT_ENCODER = "text_encoder"
TOKENIZER = "tokenizer"
VAE = "vae"
VAE_CONFIG = "vae/config.json"
VAE_WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
SAMPLES = "samples"
FORMAT = 1

_MAX_INFO_BYTES = 1024 * KIB
_MAX_JSON_BYTES = 64 * KIB


class ReleaseExpert(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What is known of one expert beside its weights. What is as usual is not written: older programs read it too."""

    label: Name
    version: Count
    objective: Objective = "velocity"
    """What it was trained on. All networks put out the same, so sampling does not ask."""


class ReleaseInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """kinoswarm.json: what this release is and all that is needed to sample from it."""

    format: Annotated[int, Meta(ge=1, le=FORMAT)] = FORMAT
    swarm_name: Name
    version: Count
    licence: Annotated[str, Meta(min_length=1, max_length=MAX_SENTENCE)]
    experts: Annotated[list[ReleaseExpert], Meta(min_length=1, max_length=MAX_CLUSTERS)]
    model: ModelSpec


def expert_config(index: int) -> str:
    """Relative path of an expert's diffusers configuration."""
    return f"experts/{index}/config.json"


def expert_weights(index: int) -> str:
    """Relative path of an expert's weights, under the name that diffusers looks for."""
    return f"experts/{index}/diffusion_pytorch_model.safetensors"


def text_folders(folder: Path) -> TextFolders:
    """Where a release keeps its text encoder."""
    return TextFolders(network=folder / TEXT_ENCODER, tokenizer=folder / TOKENIZER)


def required_files(num_experts: int, *, with_vae: bool = False) -> list[str]:
    """Relative paths of every file that a release can't be used without."""
    experts = [
        path(index) for index in range(num_experts) for path in (expert_config, expert_weights)
    ]
    network = [f"{TEXT_ENCODER}/{name}" for name in NETWORK_FILES]
    text = [*network, *(f"{TOKENIZER}/{name}" for name in TOKENIZER_FILES)]
    vae = [VAE_CONFIG, VAE_WEIGHTS] if with_vae else []
    fixed = [INFO, MODEL_INDEX, SCHEDULER_CONFIG, ROUTER_CONFIG, ROUTER_WEIGHTS]
    return [*fixed, *text, *vae, *experts]


def encode_info(info: ReleaseInfo) -> bytes:
    """kinoswarm.json with the model's settings by name, so that people can read it."""
    fields = {**msgspec.structs.asdict(info), "model": _named(info.model)}
    raw: bytes = msgspec.json.format(msgspec.json.encode(fields, order="deterministic"), indent=2)
    return raw + b"\n"


def decode_info(raw: bytes) -> ReleaseInfo:
    """Inverse of encode_info. Raises MalformedBytes naming the setting that is wrong."""
    try:
        fields = decode_json(raw, dict[str, Any])
        fields["model"] = _positional(ModelSpec, fields.get("model"))
        return msgspec.convert(fields, ReleaseInfo)
    except (MalformedBytes, msgspec.ValidationError, ValueError, RecursionError) as error:
        raise MalformedBytes(f"{INFO} is damaged: {error}; {_AGAIN}") from error


def read_info(folder: Path, *, allow_missing_experts: bool = False) -> ReleaseInfo:
    """What a release folder holds, every required file being there; experts' weights may be left out if allowed.

    Raises LocalError listing exactly what is missing, MalformedBytes or LimitExceeded for a damaged kinoswarm.json.
    """
    if not (folder / INFO).is_file():
        raise LocalError(f"{folder} is not a release (no {INFO}); {_AGAIN}")
    info = decode_info(read_bounded(folder / INFO, _MAX_INFO_BYTES))
    needed = required_files(len(info.experts), with_vae=info.model.vae is not None)
    missing = [path for path in needed if not _usable(folder, path)]
    experts = {expert_weights(index) for index in range(len(info.experts))}
    if allow_missing_experts and not experts <= set(missing):
        missing = [path for path in missing if path not in experts or (folder / path).exists()]
    if missing:
        raise LocalError(f"the release in {folder} lacks {', '.join(missing)}; {_AGAIN}")
    return info


def read_object(path: Path) -> dict[str, Any]:
    """A small JSON object. Raises MalformedBytes or LimitExceeded."""
    try:
        return decode_json(read_bounded(path, _MAX_JSON_BYTES), dict[str, Any])
    except (MalformedBytes, RecursionError) as error:
        raise MalformedBytes(f"{path} is damaged: {error}; {_AGAIN}") from error


def read_bounded(path: Path, limit: int) -> bytes:
    """A whole small file. Raises LimitExceeded before more than `limit` bytes are taken into memory."""
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise LimitExceeded(f"{path} is larger than {limit} bytes; {_AGAIN}")
    return raw


_AGAIN = "run `kinoswarm download` again"
_NESTED: dict[str, type[Struct]] = {
    "expert": ExpertSpec,
    "clip": ClipSpec,
    "text": TextSpec,
    "router": RouterSpec,
    "recipe": RecipeSpec,
    "vae": VaeSpec,
}


def _usable(folder: Path, relative: str) -> bool:
    """A regular file that really lies inside the folder: a link could point anywhere."""
    path = folder / relative
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def _named(model: ModelSpec) -> dict[str, Any]:
    fields = msgspec.structs.asdict(model)
    named = {
        name: msgspec.structs.asdict(fields[name]) for name in _NESTED if fields[name] is not None
    }
    modes = [msgspec.structs.asdict(mode) for mode in model.modes]
    return {**fields, **named, "modes": modes}


def _positional(kind: type[Struct], fields: object) -> list[Any]:
    """Settings by name as the list that the wire types are made of. Raises ValueError for unknown or absent names."""
    names = kind.__struct_fields__
    if not isinstance(fields, dict) or set(fields) != set(names):
        raise ValueError(f"{kind.__name__} must have exactly the settings {', '.join(names)}")
    return [_value(name, fields[name]) for name in names]


def _value(name: str, value: object) -> object:
    if name == "vae" and value is None:
        return None
    if name in _NESTED:
        return _positional(_NESTED[name], value)
    if name == "modes" and isinstance(value, list):
        return [_positional(ModeSpec, mode) for mode in value]
    return value
