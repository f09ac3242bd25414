"""The delta codec: what comes back, what is refused, and that no bytes crash it."""

import json
import math

import pytest
import torch
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kinoswarm_model.checkpoints import BadTensors, NotFinite, encode_tensors
from kinoswarm_model.delta import applied, decode_delta, encode_delta, with_residual
from kinoswarm_model.delta_codecs import CODECS, INT4, INT8, SCALES, SPARSE, Codec
from kinoswarm_protocol.errors import Code, LimitExceeded, MalformedBytes, RemoteError

SHAPES: dict[str, tuple[int, ...]] = {"a": (3, 50), "b": (7,), "c": ()}
LEVELS = {INT8.name: 127, INT4.name: 7}
every_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: codec.name)


def weights(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: scale * torch.randn(shape, generator=generator) for n, shape in SHAPES.items()}


def frame(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(plain)


def packed_tensors(codec: Codec = INT8) -> dict[str, torch.Tensor]:
    """The parts of a good delta."""
    blocks = sum(-(-math.prod(shape) // codec.block) for shape in SHAPES.values())
    parts = {
        f"{codec.name}/{part}": torch.ones(blocks, width, dtype=torch.uint8)
        for part, width in codec.widths.items()
    }
    scales = torch.zeros(blocks, dtype=torch.uint8)
    return {
        **parts,
        f"{codec.name}/scales": scales,
        f"{codec.name}/largest": torch.ones(len(SHAPES)),
    }


@pytest.mark.parametrize("codec", [INT8, INT4], ids=lambda codec: codec.name)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1e3))
def test_round_trip_is_within_half_a_level(codec: Codec, seed: int, scale: float) -> None:
    base, new = weights(seed), weights(seed + 1, scale)
    delta = decode_delta(encode_delta(base, new, codec), SHAPES)
    for name, tensor in delta.tensors():
        wanted = new[name] - base[name]
        level = float(wanted.abs().max()) * 2 ** (1 / 8) / LEVELS[codec.name]
        assert float((tensor - wanted).abs().max()) <= level * (0.5 + 1e-4)


@settings(max_examples=40, deadline=None)
@example(seed=276, scale=1.0)  # the twelfth and thirteenth differ in the last bits only
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1e3))
def test_sparse_keeps_the_twelve_largest_of_every_block(seed: int, scale: float) -> None:
    """Numbers that are equal in 16 bits stand for each other."""
    generator = torch.Generator().manual_seed(seed)
    new = {"a": scale * torch.randn(2, SPARSE.block, generator=generator)}
    raw = encode_delta({"a": torch.zeros(2, SPARSE.block)}, new, SPARSE)
    found = decode_delta(raw, {"a": (2, SPARSE.block)}).tensor("a")
    for wanted, sent in zip(new["a"], found, strict=True):
        twelfth = float(wanted.abs().topk(12).values[-1])
        assert sent.count_nonzero() <= 12
        assert float(wanted[sent != 0].abs().min()) >= twelfth * (1 - 2**-14)
        largest = int(wanted.abs().argmax())
        assert float(sent[largest] / wanted[largest]) == pytest.approx(1.0, abs=0.16)


@every_codec
def test_unchanged_weights_give_a_delta_of_norm_zero(codec: Codec) -> None:
    base = weights(1)
    delta = decode_delta(encode_delta(base, base, codec), SHAPES)
    assert delta.norm() == 0.0
    assert all(torch.equal(new, base[name]) for name, new in applied(base, delta).items())


def test_equal_weights_give_equal_bytes_and_blocks_have_their_own_scale() -> None:
    base = {"a": torch.zeros(2 * INT8.block)}
    new = {"a": torch.cat([torch.full((INT8.block,), 1e-6), torch.full((INT8.block,), 1e3)])}
    assert encode_delta(base, new) == encode_delta(dict(base), dict(new))
    found = decode_delta(encode_delta(base, new), {"a": (2 * INT8.block,)}).tensor("a")
    torch.testing.assert_close(found, new["a"], rtol=5e-3, atol=0)


def test_large_and_empty_tensors_come_back() -> None:
    shapes: dict[str, tuple[int, ...]] = {"big": (700, 1001), "none": (0, 3), "one": ()}
    new = {name: torch.full(shape, 0.5) for name, shape in shapes.items()}
    base = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for codec in (INT8, INT4):
        torch.testing.assert_close(
            dict(decode_delta(encode_delta(base, new, codec), shapes).tensors()), new
        )


@every_codec
def test_what_a_delta_leaves_out_is_sent_later_with_a_residual(codec: Codec) -> None:
    difference, shapes = {"a": weights(3)["a"]}, {"a": SHAPES["a"]}
    residual = {"a": torch.zeros(SHAPES["a"])}
    sent = torch.zeros(SHAPES["a"])
    for _ in range(40):
        raw, residual = with_residual(difference, residual, codec)
        sent += decode_delta(raw, shapes).tensor("a")
    torch.testing.assert_close(sent + residual["a"], 40 * difference["a"], rtol=1e-3, atol=1e-3)
    assert float((sent / 40 - difference["a"]).norm() / difference["a"].norm()) < 0.25


@every_codec
def test_most_numbers_take_few_bits(codec: Codec) -> None:
    generator = torch.Generator().manual_seed(0)
    new = {"a": torch.randn(1000, 256, generator=generator)}
    raw = encode_delta({"a": torch.zeros(1000, 256)}, new, codec)
    at_least = {INT8.name: 4, INT4.name: 8, SPARSE.name: 50}[codec.name]
    assert 4 * 256_000 / len(raw) > at_least


def test_scales_are_equal_on_every_machine() -> None:
    assert SCALES[0] == 1.0
    assert SCALES[8] == 0.5
    assert SCALES[255] == 0.0
    wanted = torch.tensor([2 ** (-code / 8) for code in range(255)])
    torch.testing.assert_close(SCALES[:255], wanted, rtol=1e-7, atol=0)


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


@every_codec
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_flipped_bytes_are_refused_or_give_finite_numbers(
    codec: Codec, data: st.DataObject
) -> None:
    raw = encode_delta(weights(1), weights(2), codec)
    plain = bytearray(zstandard.ZstdDecompressor().decompress(raw))
    whole, changed = data.draw(st.sampled_from([bytearray(raw), plain])), data.draw(st.booleans())
    for _ in range(1 + 3 * changed):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        delta = decode_delta(frame(bytes(whole)) if whole is plain else bytes(whole), SHAPES)
    except RemoteError:
        return
    assert all(bool(tensor.isfinite().all()) for _, tensor in delta.tensors())


def test_a_place_outside_its_block_is_refused() -> None:
    tensors = packed_tensors(SPARSE)
    decode_delta(frame(encode_tensors(tensors)), SHAPES)
    tensors[f"{SPARSE.name}/gaps"][1] = 22
    with pytest.raises(BadTensors, match="outside its block"):
        decode_delta(frame(encode_tensors(tensors)), SHAPES)


def test_an_unknown_codec_is_refused_with_those_that_are_known() -> None:
    raw = encode_tensors({"pickle.9/levels": torch.ones(2, 2, dtype=torch.uint8)})
    with pytest.raises(
        BadTensors, match=r"'pickle.9'; this version reads int8.1, int4.1, sparse.1"
    ):
        decode_delta(frame(raw), SHAPES)


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
        ({"int8.1/levels": None}, "is missing"),
        ({"int8.1/zzz": torch.ones(2, dtype=torch.uint8)}, "does not belong"),
        ({"int4.1/levels": torch.ones(2, dtype=torch.uint8)}, "is missing|does not belong"),
        ({"int8.1/levels": torch.ones(5, 128, dtype=torch.uint8)}, "expected"),
        ({"int8.1/levels": torch.ones(4, 128)}, "type F32"),
        ({"int8.1/largest": torch.ones(3, dtype=torch.float64)}, "type F64"),
        ({"int8.1/scales": torch.ones(2, dtype=torch.uint8)}, "expected"),
    ],
)
def test_foreign_tensors_are_refused(change: dict[str, torch.Tensor | None], said: str) -> None:
    tensors = {**packed_tensors(), **change}
    raw = encode_tensors({name: value for name, value in tensors.items() if value is not None})
    with pytest.raises(BadTensors, match=said) as caught:
        decode_delta(frame(raw), SHAPES)
    assert caught.value.code == Code.BAD_TENSORS


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_largest_numbers_that_are_not_sizes_are_refused(value: float) -> None:
    tensors = packed_tensors()
    tensors["int8.1/largest"][0] = value
    with pytest.raises(NotFinite) as caught:
        decode_delta(frame(encode_tensors(tensors)), SHAPES)
    assert caught.value.code == Code.NOT_FINITE
