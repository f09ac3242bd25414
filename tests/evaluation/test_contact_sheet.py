"""The contact sheet: every clip is in it, captions fit, and equal input gives equal bytes."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from kinoswarm_model.contact_sheet import SheetText, write_contact_sheet
from kinoswarm_protocol.errors import LocalError


def plain(colour: tuple[int, int, int], frames: int = 3) -> NDArray[np.uint8]:
    return np.full((frames, 8, 8, 3), colour, dtype=np.uint8)


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def colours(path: Path) -> dict[tuple[int, ...], int]:
    pixels = pixels_of(path).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(int(c) for c in colour): int(n) for colour, n in zip(found, counts, strict=True)}


def test_every_clip_is_there_three_times_as_large(tmp_path: Path) -> None:
    rows = [
        ("a", plain((255, 0, 0)), plain((0, 255, 0))),
        ("b", plain((0, 0, 255)), plain((9, 9, 9))),
    ]
    write_contact_sheet(tmp_path / "sheet.png", rows)
    found = colours(tmp_path / "sheet.png")
    for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]:
        assert found[colour] == 3 * 24 * 24


def test_real_is_left_of_generated(tmp_path: Path) -> None:
    write_contact_sheet(tmp_path / "sheet.png", [("a", plain((255, 0, 0)), plain((0, 255, 0)))])
    pixels = pixels_of(tmp_path / "sheet.png")
    red = np.argwhere((pixels == (255, 0, 0)).all(axis=-1))
    green = np.argwhere((pixels == (0, 255, 0)).all(axis=-1))
    assert red[:, 1].max() < green[:, 1].min()
    assert red[:, 0].min() == green[:, 0].min()


def test_long_and_foreign_captions_never_widen_the_sheet(tmp_path: Path) -> None:
    sizes = set()
    for caption in ["a", "word " * 400, "line\nbreak", "日本語 \U0001f3ac", ""]:
        write_contact_sheet(tmp_path / "sheet.png", [(caption, plain((1, 2, 3)), plain((3, 2, 1)))])
        sizes.add(pixels_of(tmp_path / "sheet.png").shape)
    assert len(sizes) == 1


def test_a_note_makes_room_for_itself(tmp_path: Path) -> None:
    rows = [("a", plain((1, 2, 3)), plain((3, 2, 1)))]
    write_contact_sheet(tmp_path / "without.png", rows)
    write_contact_sheet(tmp_path / "with.png", rows, SheetText(note="release 3"))
    without, with_note = (pixels_of(tmp_path / f"{name}.png") for name in ("without", "with"))
    assert len(with_note) > len(without)


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    rows = [("a", plain((1, 2, 3)), plain((3, 2, 1)))]
    write_contact_sheet(tmp_path / "a.png", rows)
    write_contact_sheet(tmp_path / "b.png", rows)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_rows_or_different_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="none"):
        write_contact_sheet(tmp_path / "sheet.png", [])
    with pytest.raises(LocalError, match="one shape"):
        write_contact_sheet(
            tmp_path / "sheet.png", [("a", plain((1, 2, 3)), plain((1, 2, 3), frames=4))]
        )


def test_letters_that_the_typeface_lacks_are_replaced_by_their_base(tmp_path: Path) -> None:
    clip = plain((1, 2, 3))
    write_contact_sheet(tmp_path / "plain.png", [("Frechet ?", clip, clip)])
    write_contact_sheet(tmp_path / "accent.png", [("Fréchet 日", clip, clip)])
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "accent.png").read_bytes()
