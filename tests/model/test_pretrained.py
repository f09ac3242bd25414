"""Starting from pretrained weights: a tiny Wan transformer of diffusers, whole or in parts; foreign ones refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from model.samples import make_shard, tiny_model

from kinoswarm_model import segment
from kinoswarm_model.checkpoints import BadTensors, NotFinite, decode_tensors, encode_tensors
from kinoswarm_model.data.shards import write_shard
from kinoswarm_model.experts import build_expert
from kinoswarm_model.jobs import TrainJob
from kinoswarm_model.pretrained import (
    CONFIG,
    INDEX,
    WEIGHTS,
    load_pretrained,
    model_started_from,
)
from kinoswarm_protocol.errors import KinoswarmError, LocalError, MalformedBytes, VersionMismatch
from kinoswarm_protocol.specs import ModelSpec

FRESH = ["condition_embedder.text_embedder.linear_1.weight"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers wide 64, for a text encoder of width 24."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    network = WanTransformer3DModel(
        patch_size=(2, 4, 4),
        num_attention_heads=2,
        attention_head_dim=32,
        in_channels=3,
        out_channels=3,
        text_dim=24,
        freq_dim=32,
        ffn_dim=96,
        num_layers=3,
        rope_max_seq_len=32,
    )
    folder = tmp_path_factory.mktemp("wan")
    network.save_pretrained(folder / "transformer")
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole / "transformer", tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def model(whole: Path) -> ModelSpec:
    return model_started_from(whole, tiny_model())


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return decode_tensors((folder / WEIGHTS).read_bytes())


def test_the_network_takes_the_folders_shape_and_this_swarms_text(model: ModelSpec) -> None:
    config = model.expert.config
    assert (config["num_layers"], config["ffn_dim"], config["patch_size"]) == (3, 96, [2, 4, 4])
    assert config["text_dim"] == tiny_model().text.dim


def test_all_weights_but_the_text_projection_are_taken(whole: Path, model: ModelSpec) -> None:
    network = build_expert(model, seed=5).network
    before = network.state_dict()[FRESH[0]].clone()
    assert load_pretrained(network, whole) == FRESH
    after = network.state_dict()
    for name, tensor in weights_in(whole / "transformer").items():
        if name not in FRESH:
            assert torch.equal(after[name], tensor)
    assert torch.equal(after[FRESH[0]], before)


def test_half_precision_weights_in_parts_are_taken(copy: Path, model: ModelSpec) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in weights_in(copy).items()}
    names = sorted(tensors)
    parts = {"part-1.safetensors": names[::2], "part-2.safetensors": names[1::2]}
    for file, some in parts.items():
        (copy / file).write_bytes(encode_tensors({name: tensors[name] for name in some}))
    index = {"weight_map": {name: file for file, some in parts.items() for name in some}}
    (copy / INDEX).write_text(json.dumps(index))
    (copy / WEIGHTS).unlink()
    network = build_expert(model, seed=5).network
    assert load_pretrained(network, copy) == FRESH
    assert torch.equal(network.state_dict()["proj_out.bias"], tensors["proj_out.bias"].float())


def test_the_common_seed_starts_from_the_folder(
    whole: Path, model: ModelSpec, tmp_path: Path
) -> None:
    write_shard(tmp_path / "shard.safetensors", make_shard(model, 8, 0))
    job = TrainJob(
        job_id="seed",
        model=model,
        work_dir=str(tmp_path / "work"),
        shard_paths=[str(tmp_path / "shard.safetensors")],
        steps=1,
        batch_size=2,
        seed=1,
        pretrained_dir=str(whole),
    )
    started, _ = segment.starting_point(job)
    expected = weights_in(whole / "transformer")["blocks.2.ffn.net.2.weight"]
    assert torch.equal(started.network.state_dict()["blocks.2.ffn.net.2.weight"], expected)
    done = segment.run(job, lambda progress: None)
    trained = decode_tensors(Path(done.output_path).read_bytes())["blocks.2.ffn.net.2.weight"]
    assert 0.0 < float((trained - expected).abs().max()) < 0.1


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"_class_name": "EvilModel"}, VersionMismatch),
        ({"image_dim": 1280}, VersionMismatch),
        ({"out_channels": 16}, LocalError),
        ({"patch_size": [[1], 2, 2]}, MalformedBytes),
        ({"num_layers": 10**12}, MalformedBytes),
    ],
)
def test_a_foreign_config_is_refused(
    copy: Path, changes: dict[str, object], kind: type[KinoswarmError]
) -> None:
    config = {**json.loads((copy / CONFIG).read_text()), **changes}
    (copy / CONFIG).write_text(json.dumps(config))
    with pytest.raises(kind):
        model_started_from(copy, tiny_model())


def test_foreign_weights_are_refused(copy: Path, model: ModelSpec) -> None:
    network = build_expert(model, seed=5).network
    good = weights_in(copy)
    lacking = {name: tensor for name, tensor in good.items() if name != "proj_out.bias"}
    infinite = {**good, "proj_out.bias": good["proj_out.bias"] / 0.0}
    for raw, kind in (
        (encode_tensors(lacking), BadTensors),
        (encode_tensors(infinite), NotFinite),
        (b"", MalformedBytes),
    ):
        (copy / WEIGHTS).write_bytes(raw)
        with pytest.raises(kind):
            load_pretrained(network, copy)


@pytest.mark.parametrize(
    "index",
    ["{", "[]", '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../elsewhere.safetensors"}}'],
)
def test_an_index_that_points_elsewhere_is_refused(
    copy: Path, model: ModelSpec, index: str
) -> None:
    (copy / WEIGHTS).unlink()
    (copy / INDEX).write_text(index)
    with pytest.raises(MalformedBytes):
        load_pretrained(build_expert(model, seed=5).network, copy)


def test_an_empty_folder_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="holds no transformer"):
        model_started_from(tmp_path, tiny_model())
