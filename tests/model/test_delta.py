"""The delta codec: what comes back, what is refused, and that no bytes crash it."""

import json
import math

import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kinoswarm_model.checkpoints import BadTensors, NotFinite, encode_tensors
from kinoswarm_model.delta import BLOCK, applied, decode_delta, encode_delta
from kinoswarm_protocol.errors import Code, LimitExceeded, MalformedBytes, RemoteError

SHAPES: dict[str, tuple[int, ...]] = {"a": (3, 50), "b": (7,), "c": ()}
ONE_STEP = 1 / 127 / 2
"""Half a level of the largest number in a block."""


def weights(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: scale * torch.randn(shape, generator=generator) for n, shape in SHAPES.items()}


def frame(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(plain)


def packed_tensors() -> dict[str, torch.Tensor]:
    packed: dict[str, torch.Tensor] = {}
    for name, shape in SHAPES.items():
        count = math.prod(shape)
        packed[f"q:{name}"] = torch.ones(shape, dtype=torch.int8)
        packed[f"s:{name}"] = torch.ones(-(-count // BLOCK))
    return packed


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-6, 1e3))
def test_round_trip_is_within_half_a_level(seed: int, scale: float) -> None:
    base, new = weights(seed), weights(seed + 1, scale)
    delta = decode_delta(encode_delta(base, new), SHAPES)
    for name, tensor in delta.tensors():
        wanted = new[name] - base[name]
        bound = float(wanted.abs().max()) * (ONE_STEP + 1e-6)
        assert float((tensor - wanted).abs().max()) <= bound


def test_unchanged_weights_give_a_delta_of_norm_zero() -> None:
    base = weights(1)
    delta = decode_delta(encode_delta(base, base), SHAPES)
    assert delta.norm() == 0.0
    assert all(torch.equal(new, base[name]) for name, new in applied(base, delta).items())


def test_equal_weights_give_equal_bytes_and_blocks_have_their_own_scale() -> None:
    base = {"a": torch.zeros(2 * BLOCK)}
    new = {"a": torch.cat([torch.full((BLOCK,), 1e-6), torch.full((BLOCK,), 1e3)])}
    assert encode_delta(base, new) == encode_delta(dict(base), dict(new))
    found = decode_delta(encode_delta(base, new), {"a": (2 * BLOCK,)}).tensor("a")
    torch.testing.assert_close(found, new["a"])


def test_diverged_training_is_not_encoded() -> None:
    base, new = weights(1), weights(2)
    new["b"][3] = float("nan")
    with pytest.raises(NotFinite, match="diverged"):
        encode_delta(base, new)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_crash_the_decoder(raw: bytes) -> None:
    with pytest.raises(RemoteError):
        decode_delta(raw, SHAPES)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_inside_a_good_frame_crash_the_decoder(plain: bytes) -> None:
    with pytest.raises(RemoteError):
        decode_delta(frame(plain), SHAPES)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_no_header_crashes_the_decoder(header: object) -> None:
    raw = json.dumps(header).encode()
    with pytest.raises(RemoteError):
        decode_delta(frame(len(raw).to_bytes(8, "little") + raw + b"\0" * 64), SHAPES)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_flipped_bytes_are_refused_or_give_finite_numbers(data: st.DataObject) -> None:
    raw = bytearray(encode_delta(weights(1), weights(2)))
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    try:
        delta = decode_delta(bytes(raw), SHAPES)
    except RemoteError:
        return
    assert all(bool(tensor.isfinite().all()) for _, tensor in delta.tensors())


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = frame(b"\0" * 50_000_000)
    assert len(bomb) < 10_000
    with pytest.raises(LimitExceeded, match="declares 50000000") as caught:
        decode_delta(bomb, SHAPES)
    assert caught.value.code == Code.OVERSIZE


def test_a_frame_that_hides_its_size_is_refused() -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    with pytest.raises(MalformedBytes, match="does not declare"):
        decode_delta(compressor.compress(b"x" * 100), SHAPES)


def test_bytes_after_the_frame_are_refused() -> None:
    with pytest.raises(MalformedBytes):
        decode_delta(encode_delta(weights(1), weights(2)) + b"more", SHAPES)


def test_a_header_that_claims_gigabytes_is_refused() -> None:
    with pytest.raises(LimitExceeded, match="header of"):
        decode_delta(frame((2**40).to_bytes(8, "little") + b"{}"), SHAPES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"q:b": None}, "is missing"),
        ({"q:zzz": torch.ones(2, dtype=torch.int8)}, "does not belong"),
        ({"q:b": torch.ones(8, dtype=torch.int8)}, "expected"),
        ({"q:b": torch.ones(7)}, "type F32"),
        ({"s:b": torch.ones(1, dtype=torch.float64)}, "type F64"),
        ({"s:b": torch.ones(2)}, "expected"),
    ],
)
def test_foreign_tensors_are_refused(change: dict[str, torch.Tensor | None], said: str) -> None:
    tensors = {**packed_tensors(), **change}
    raw = encode_tensors({name: value for name, value in tensors.items() if value is not None})
    with pytest.raises(BadTensors, match=said) as caught:
        decode_delta(frame(raw), SHAPES)
    assert caught.value.code == Code.BAD_TENSORS


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_scales_that_are_not_sizes_are_refused(value: float) -> None:
    tensors = packed_tensors()
    tensors["s:a"][0] = value
    with pytest.raises(NotFinite) as caught:
        decode_delta(frame(encode_tensors(tensors)), SHAPES)
    assert caught.value.code == Code.NOT_FINITE
