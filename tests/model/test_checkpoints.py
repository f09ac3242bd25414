"""Checkpoint files and presets: atomic writing, hostile contents, models that can be built."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinoswarm_model.checkpoints import (
    BadTensors,
    NotFinite,
    decode_tensors,
    encode_tensors,
    header_of,
    read_checkpoint,
    write_atomic,
    write_checkpoint,
)
from kinoswarm_model.experts import count_parameters, tensor_shapes
from kinoswarm_model.flops import expert_flops, router_flops
from kinoswarm_model.once_per_model import once_per_model
from kinoswarm_model.presets import preset, preset_names
from kinoswarm_model.router import router_shapes
from kinoswarm_protocol.errors import LimitExceeded, LocalError, MalformedBytes, RemoteError
from kinoswarm_protocol.specs import ModelSpec

SHAPES = {"a": (2, 3), "b": (4,)}


def weights() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4)}


def test_weights_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "c.safetensors"
    write_checkpoint(path, weights())
    found = read_checkpoint(path, SHAPES)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights().items())
    assert [p.name for p in path.parent.iterdir()] == ["c.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "c.bin"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"b": torch.ones(5)}, BadTensors),
        ({"c": torch.ones(1)}, BadTensors),
        ({"b": torch.ones(4, dtype=torch.int32)}, BadTensors),
        ({"b": torch.full((4,), float("inf"))}, NotFinite),
    ],
)
def test_foreign_weights_are_refused(
    tmp_path: Path, change: dict[str, torch.Tensor], error: type[RemoteError]
) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(encode_tensors({**weights(), **change}))
    with pytest.raises(error, match=r"c\.safetensors"):
        read_checkpoint(path, SHAPES)


def test_missing_file_is_a_local_error(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="can't read"):
        read_checkpoint(tmp_path / "absent", SHAPES)


def test_file_larger_than_the_model_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1024 * 1024 * 1024)
    with pytest.raises(LimitExceeded, match="needs at most"):
        read_checkpoint(path, SHAPES)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    with pytest.raises(RemoteError):
        decode_tensors(raw)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_flipped_bytes_are_read_or_refused(data: st.DataObject) -> None:
    raw = bytearray(encode_tensors(weights()))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decode_tensors(bytes(raw))
    except RemoteError:
        return


def test_tensor_of_many_dimensions_is_refused() -> None:
    raw = encode_tensors({"a": torch.ones([1] * 9)})
    with pytest.raises(LimitExceeded, match="9 dimensions"):
        header_of(raw)


def test_header_beyond_the_file_is_refused() -> None:
    with pytest.raises(MalformedBytes):
        header_of((1000).to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize("name", ["tiny", "demo"])
def test_every_preset_can_be_built_and_counted(name: str) -> None:
    model = preset(name, frames=8, height=32, width=32, num_clusters=4).model
    assert name in preset_names()
    assert 1_000 < count_parameters(model) < 20_000_000
    assert tensor_shapes(model)
    assert router_shapes(model, 4)
    assert expert_flops(model) > 2 * count_parameters(model)
    assert router_flops(model, 4) > 0


def test_unknown_preset_names_those_that_exist() -> None:
    with pytest.raises(LocalError, match="tiny, demo, home-8gb"):
        preset("huge", frames=8, height=32, width=32, num_clusters=4)


def test_what_was_counted_once_is_not_counted_again_for_an_equal_model() -> None:
    counted: list[str] = []

    @once_per_model
    def count(model: ModelSpec) -> int:
        counted.append(model.preset)
        return len(counted)

    first = preset("tiny", frames=4, height=16, width=16, num_clusters=2).model
    equal = preset("tiny", frames=4, height=16, width=16, num_clusters=2).model
    other = preset("tiny", frames=8, height=16, width=16, num_clusters=2).model
    assert (count(first), count(equal), count(other), count(first)) == (1, 1, 2, 1)
