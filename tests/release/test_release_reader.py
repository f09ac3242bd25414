"""A release is foreign: whatever was changed in it is refused by name before anything is built from it."""

import json
from pathlib import Path

import pytest
from release.conftest import Damage

from kinoswarm_model.checkpoints import BadTensors, decode_tensors, encode_tensors
from kinoswarm_model.release_layout import expert_weights
from kinoswarm_model.release_reader import open_release
from kinoswarm_protocol.errors import KinoswarmError, MalformedBytes


def changed(release_dir: Path, path: str, **changes: object) -> bytes:
    return json.dumps({**json.loads((release_dir / path).read_text()), **changes}).encode()


def test_a_whole_release_opens(release_dir: Path) -> None:
    release = open_release(release_dir)
    assert len(release.experts) == 2
    assert release.experts(0) is release.experts(0)


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("model_index.json", {"_class_name": "EvilPipeline"}),
        ("model_index.json", {"experts": ["os", "system"]}),
        ("model_index.json", {"vae": ["evil", "Vae"]}),
        ("experts/0/config.json", {"_class_name": "EvilModel"}),
        ("experts/1/config.json", {"num_layers": 10**6}),
        ("router/config.json", {"width": 10**6}),
        ("scheduler/scheduler_config.json", {"_class_name": "EvilScheduler"}),
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
        ("text_encoder/config.json", {"model_type": "gpt2"}),
        ("text_encoder/config.json", {"vocab_size": 10**12}),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil", None]}}),
        ("tokenizer/tokenizer_config.json", {"tokenizer_class": "EvilTokenizer"}),
    ],
)
def test_a_foreign_class_or_size_is_refused(
    release_dir: Path, damaged: Damage, path: str, changes: dict[str, object]
) -> None:
    folder = damaged(path, changed(release_dir, path, **changes))
    with pytest.raises(MalformedBytes):
        open_release(folder)


@pytest.mark.parametrize(
    "path",
    [
        "model_index.json",
        "experts/0/config.json",
        "router/model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "text_encoder/config.json",
    ],
)
@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff" * 64, b"[" * 50_000])
def test_a_damaged_file_is_refused(damaged: Damage, path: str, raw: bytes) -> None:
    with pytest.raises(KinoswarmError):
        open_release(damaged(path, raw))


def test_an_expert_with_other_tensors_is_refused_on_first_use(
    release_dir: Path, damaged: Damage
) -> None:
    tensors = decode_tensors((release_dir / expert_weights(1)).read_bytes())
    tensors["proj_out.bias"] = tensors["proj_out.bias"][:-1]
    release = open_release(damaged(expert_weights(1), encode_tensors(tensors)))
    release.experts(0)
    with pytest.raises(BadTensors, match=r"proj_out\.bias"):
        release.experts(1)
