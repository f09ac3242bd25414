"""The diffusers-style configuration files of a release: what is written and what is accepted back. Free of torch.

Class names are compared with the allow-list here and never imported by name; a config that differs from kinoswarm.json
is refused, so that there is one truth about what is built.
"""

from pathlib import Path
from typing import Any

import msgspec

from kinoswarm_model.data.text import TextFolders
from kinoswarm_model.release_layout import (
    MODEL_INDEX,
    ROUTER_CONFIG,
    SCHEDULER_CONFIG,
    VAE_CONFIG,
    ReleaseInfo,
    expert_config,
    read_object,
    text_folders,
)
from kinoswarm_protocol.errors import MalformedBytes

PIPELINE_CLASS = "RoutedVideoPipeline"
DIFFUSERS_VERSION = "0.36.0"
"""Of the layout, written into every file: the oldest diffusers that this project accepts reads it."""

_COMPONENTS = {
    "experts": ["kinoswarm_model.expert_set", "ExpertSet"],
    "router": ["kinoswarm_model.router", "Router"],
    "text_encoder": ["transformers", "BertModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
}
_TOKENIZERS = {"BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"}
_TEXT_BOUNDS = {
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "intermediate_size": 32_768,
    "vocab_size": 1_000_000,
    "max_position_embeddings": 32_768,
    "type_vocab_size": 64,
}


def config_files(info: ReleaseInfo) -> dict[str, bytes]:
    """Relative path and contents of every configuration file of a release, kinoswarm.json aside."""
    experts = {expert_config(index): _expert(info) for index in range(len(info.experts))}
    objects = {
        MODEL_INDEX: _model_index(info),
        SCHEDULER_CONFIG: _scheduler(info),
        ROUTER_CONFIG: _router(info),
        **experts,
    }
    return {path: _encode(fields) for path, fields in objects.items()}


def check_configs(folder: Path, info: ReleaseInfo) -> None:
    """Compare every configuration file with kinoswarm.json and the allow-list; raises MalformedBytes at the first."""
    _check_index(read_object(folder / MODEL_INDEX), info)
    _check_vae(folder, info)
    _check_equal(folder / SCHEDULER_CONFIG, _scheduler(info))
    _check_equal(folder / ROUTER_CONFIG, _router(info))
    for index in range(len(info.experts)):
        _check_equal(folder / expert_config(index), _expert(info))
    _check_text(text_folders(folder), info)


def _model_index(info: ReleaseInfo) -> dict[str, Any]:
    vae = info.model.vae
    return {
        "_class_name": PIPELINE_CLASS,
        "_diffusers_version": DIFFUSERS_VERSION,
        **_COMPONENTS,
        **({"vae": ["diffusers", vae.class_name]} if vae is not None else {}),
    }


def _expert(info: ReleaseInfo) -> dict[str, Any]:
    spec = info.model.expert
    return {
        "_class_name": spec.class_name,
        "_diffusers_version": DIFFUSERS_VERSION,
        **spec.config,
    }


def _router(info: ReleaseInfo) -> dict[str, Any]:
    spec = info.model.router
    return {
        "_class_name": "Router",
        "num_clusters": len(info.experts),
        "text_dim": info.model.text.dim,
        "width": spec.width,
        "depth": spec.depth,
        "heads": spec.heads,
        "patch": spec.patch,
    }


def _scheduler(info: ReleaseInfo) -> dict[str, Any]:
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "num_train_timesteps": 1000,
        "shift": info.model.recipe.shift,
    }


def _check_vae(folder: Path, info: ReleaseInfo) -> None:
    """Its class is the charter's; what else its config says is checked when it is loaded (vae.py)."""
    if info.model.vae is None:
        return
    name = read_object(folder / VAE_CONFIG).get("_class_name")
    if name != info.model.vae.class_name:
        raise MalformedBytes(
            f"{VAE_CONFIG}: _class_name is {_short(name)}, but kinoswarm.json says {info.model.vae.class_name}; "
            "run `kinoswarm download` again"
        )


def _check_index(found: dict[str, Any], info: ReleaseInfo) -> None:
    wanted = _model_index(info)
    for name in sorted(set(found) | set(wanted)):
        if name != "_diffusers_version" and found.get(name) != wanted.get(name):
            raise MalformedBytes(
                f"{MODEL_INDEX}: {name} is {_short(found.get(name))}, allowed is {wanted.get(name)!r}; "
                "take the release from a source that you trust"
            )


def _check_equal(path: Path, wanted: dict[str, Any]) -> None:
    found = read_object(path)
    for name in sorted(set(found) | set(wanted)):
        if name != "_diffusers_version" and found.get(name) != wanted.get(name):
            place = "/".join(path.parts[-3:])
            raise MalformedBytes(
                f"{place}: {name} is {_short(found.get(name))}, but kinoswarm.json says {_short(wanted.get(name))}; "
                "run `kinoswarm download` again"
            )


def _check_text(folders: TextFolders, info: ReleaseInfo) -> None:
    """The encoder's class is fixed; its sizes are bounded and nothing in it may name code of its own."""
    config = read_object(folders.network / "config.json")
    tokenizer = read_object(folders.tokenizer / "tokenizer_config.json")
    for name, fields in (("text_encoder", config), ("tokenizer", tokenizer)):
        if "auto_map" in fields:
            raise MalformedBytes(f"{name} names code of its own (auto_map): refused")
    if config.get("model_type") != "bert" or config.get("hidden_size") != info.model.text.dim:
        raise MalformedBytes(
            f"text_encoder is {_short(config.get('model_type'))} of width {_short(config.get('hidden_size'))}; "
            f"this release needs bert of width {info.model.text.dim}"
        )
    if tokenizer.get("tokenizer_class", "BertTokenizer") not in _TOKENIZERS:
        raise MalformedBytes(
            f"tokenizer class {_short(tokenizer.get('tokenizer_class'))}: allowed are {', '.join(sorted(_TOKENIZERS))}"
        )
    for name, most in _TEXT_BOUNDS.items():
        value = config.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise MalformedBytes(
                f"text_encoder/config.json: {name} is {_short(value)}; 1 to {most} allowed"
            )


def _encode(fields: dict[str, Any]) -> bytes:
    raw: bytes = msgspec.json.format(msgspec.json.encode(fields), indent=2)
    return raw + b"\n"


def _short(value: object) -> str:
    return repr(value)[:80]
