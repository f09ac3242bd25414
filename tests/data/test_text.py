"""The text encoder: bounded, deterministic, copyable, and close captions are close."""

from pathlib import Path

import numpy as np
import pytest

from kinoswarm_model.data.errors import DataError
from kinoswarm_model.data.text import (
    MAX_TOKENS,
    TEXT_DIM,
    TextEncoder,
    TextFolders,
    copy_text_encoder,
)


def test_embeddings_have_the_promised_shapes(encoder: TextEncoder) -> None:
    batch = encoder.encode(["a cat", "the camera turns left in a hall of grey stone"])
    assert batch.tokens.shape == (2, MAX_TOKENS, TEXT_DIM)
    assert batch.mask.shape == (2, MAX_TOKENS)
    assert batch.pooled.shape == (2, TEXT_DIM)
    assert (batch.tokens.dtype, batch.mask.dtype, batch.pooled.dtype) == ("f2", "u1", "f2")
    assert batch.mask.sum(axis=1).tolist() == [4, 12]
    assert not batch.tokens[0, 4:].any()
    np.testing.assert_allclose(np.linalg.norm(batch.pooled.astype(float), axis=1), 1, atol=1e-3)


def test_long_texts_are_cut(encoder: TextEncoder) -> None:
    batch = encoder.encode(["word " * 100_000, "", "日本語 \ud83c"])
    assert batch.mask[0].sum() == MAX_TOKENS
    assert np.isfinite(batch.tokens).all()
    assert np.isfinite(batch.pooled).all()


def test_no_texts_are_an_empty_batch(encoder: TextEncoder) -> None:
    assert encoder.encode([]).tokens.shape == (0, MAX_TOKENS, TEXT_DIM)


def test_a_text_is_embedded_alike_in_any_company(encoder: TextEncoder) -> None:
    alone = encoder.encode(["a red cavern"])
    among = encoder.encode([f"text {i}" for i in range(70)] + ["a red cavern"])
    np.testing.assert_allclose(alone.pooled[0], among.pooled[-1], atol=2e-3)


def test_captions_of_one_place_are_nearer_than_of_another(encoder: TextEncoder) -> None:
    a, b, c = encoder.encode(
        [
            "the camera turns left in a garden of green hedges",
            "the camera moves forward in a garden of green hedges",
            "the camera turns left in a cavern of bright red rock",
        ]
    ).pooled.astype(np.float32)
    assert a @ b > a @ c


def test_progress_is_reported_to_the_end(encoder: TextEncoder) -> None:
    seen: list[tuple[int, int, str]] = []
    encoder.encode([f"text {i}" for i in range(70)], lambda *step: seen.append(step))
    assert [step[0] for step in seen] == [64, 70]
    assert seen[-1] == (70, 70, "embedding captions")


def test_a_copied_encoder_embeds_alike_and_brings_no_pickles(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    copy_text_encoder(TextFolders.in_one(tmp_path / "encoder"))
    names = {path.name for path in (tmp_path / "encoder").iterdir()}
    assert "model.safetensors" in names
    assert {Path(name).suffix for name in names} <= {".safetensors", ".json", ".txt"}
    copied = TextEncoder.load(tmp_path / "encoder").encode(["a cat"])
    assert copied.tokens.tobytes() == encoder.encode(["a cat"]).tokens.tobytes()


def test_a_folder_without_an_encoder_names_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks config\.json, model\.safetensors"):
        TextEncoder.load(tmp_path)
    with pytest.raises(DataError, match=r"lacks config\.json, model\.safetensors"):
        copy_text_encoder(TextFolders.in_one(tmp_path / "copy"), TextFolders.in_one(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_encoder_says_so(name: str, tmp_path: Path) -> None:
    copy_text_encoder(TextFolders.in_one(tmp_path))
    (tmp_path / name).write_bytes(b"{broken")
    with pytest.raises(DataError, match="damaged"):
        TextEncoder.load(tmp_path)


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy_text_encoder(TextFolders.in_one(tmp_path))
    TextEncoder.load(tmp_path)
    assert capfd.readouterr() == ("", "")
