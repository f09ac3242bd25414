"""Starting an expert from a pretrained folder: a Wan transformer in diffusers' layout. Owns which of its parts count.

A folder is foreign: its class must be allowed, only known settings are taken from its config, and weights are
safetensors whose names and shapes are compared first. Its own text projection does not fit another text encoder and
starts fresh; everything else must be there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from kinoswarm_model.release_layout import read_bounded, read_object
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import LocalError, MalformedBytes, VersionMismatch
from kinoswarm_protocol.limits import MAX_SAFETENSORS_HEADER
from kinoswarm_protocol.specs import Config, ExpertClass, ExpertSpec, ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
_CLASS: ExpertClass = "WanTransformer3DModel"
_TAKEN = (
    "patch_size",
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "out_channels",
    "freq_dim",
    "ffn_dim",
    "num_layers",
    "cross_attn_norm",
    "qk_norm",
    "eps",
    "rope_max_seq_len",
)
_MAY_START_FRESH = "condition_embedder.text_embedder."
_MAX_FILES = 256


def model_started_from(folder: Path, model: ModelSpec) -> ModelSpec:
    """The model with the pretrained network's shape, kept to this swarm's clips and text. Torch-free.

    Raises LocalError when the folder holds no transformer, VersionMismatch for another class, MalformedBytes for
    settings that can't be used.
    """
    config = read_object(transformer_folder(folder) / CONFIG)
    name = config.get("_class_name")
    if name != _CLASS:
        raise VersionMismatch(
            f"{folder} holds a {str(name)[:80]!r}; experts can start from {_CLASS}"
        )
    for key in ("image_dim", "added_kv_proj_dim", "pos_embed_seq_len"):
        if config.get(key) is not None:
            raise VersionMismatch(
                f"{folder} was trained on images too ({key}); take a text-to-video model"
            )
    taken = {key: config[key] for key in _TAKEN if key in config}
    if taken.get("out_channels") != model.clip.channels:
        raise LocalError(
            f"{folder} makes {str(taken.get('out_channels'))[:20]} channels, this data has {model.clip.channels}: "
            "prepare the data with the VAE that belongs to these weights"
        )
    try:
        expert = ExpertSpec(
            class_name=_CLASS,
            config=msgspec.convert({**taken, "text_dim": model.text.dim}, Config),
        )
    except msgspec.ValidationError as error:
        raise MalformedBytes(f"{folder / CONFIG}: {error}") from error
    return structs.replace(model, expert=expert)


def load_pretrained(network: Any, folder: Path) -> list[str]:
    """Fill the network with the folder's weights, float32; gives the names of what starts fresh.

    Raises LocalError for missing files, MalformedBytes, LimitExceeded, BadTensors or NotFinite for their contents.
    """
    from kinoswarm_model.checkpoints import BadTensors, check_shapes, tensors_of

    files = _files_by_tensor(transformer_folder(folder))
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    fitting = _fitting(files, expected)
    fresh = sorted(set(expected) - fitting)
    for name in fresh:
        if not name.startswith(_MAY_START_FRESH):
            raise BadTensors(f"{folder}: tensor {name} is missing or of another shape")
    weights: dict[str, Tensor] = {}
    for path in sorted({files[name] for name in fitting}):
        names = [name for name in fitting if files[name] == path]
        weights |= {name: tensor.float() for name, tensor in tensors_of(path, names).items()}
    check_shapes(weights, {name: expected[name] for name in fitting}, str(folder))
    network.load_state_dict(weights, strict=False)
    return fresh


def transformer_folder(folder: Path) -> Path:
    """The folder that holds the transformer: this one, or `transformer` in a pipeline's."""
    for place in (folder, folder / "transformer"):
        if (place / CONFIG).is_file() and (
            (place / WEIGHTS).is_file() or (place / INDEX).is_file()
        ):
            return place
    raise LocalError(
        f"{folder} holds no transformer: {CONFIG} and {WEIGHTS} (or its index and parts) are needed there or in its "
        "transformer folder, as in Wan-AI/Wan2.1-T2V-1.3B-Diffusers on huggingface.co"
    )


def _fitting(files: Mapping[str, Path], expected: Mapping[str, tuple[int, ...]]) -> set[str]:
    """Names whose shape is what the network wants."""
    from kinoswarm_model.checkpoints import declared_shapes

    declared: dict[str, tuple[int, ...]] = {}
    for path in set(files.values()):
        declared |= declared_shapes(path)
    return {
        name for name, shape in expected.items() if name in files and declared.get(name) == shape
    }


def _files_by_tensor(place: Path) -> dict[str, Path]:
    """Where each tensor lies: in the one file, or where the index says; parts must lie in the same folder."""
    from kinoswarm_model.checkpoints import declared_shapes

    if (place / WEIGHTS).is_file():
        return dict.fromkeys(declared_shapes(place / WEIGHTS), place / WEIGHTS)
    try:
        index = decode_json(read_bounded(place / INDEX, MAX_SAFETENSORS_HEADER), dict[str, Any])
        names = msgspec.convert(index.get("weight_map"), dict[str, str])
    except (MalformedBytes, msgspec.ValidationError, RecursionError) as error:
        raise MalformedBytes(f"{place / INDEX} is damaged: {error}") from error
    files = set(names.values())
    if len(files) > _MAX_FILES or any(Path(file).name != file for file in files):
        raise MalformedBytes(f"{place / INDEX} names files outside its folder, or too many")
    return {name: place / file for name, file in names.items()}
