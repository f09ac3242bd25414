"""A picture of real clips beside generated ones, for people. Owns its layout; importing it is cheap.

Shapes: T frames, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.frame_strips import frame_strip, write_png
from kinoswarm_model.lettering import shortened, typeface
from kinoswarm_protocol.errors import LocalError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

Clip = NDArray[np.uint8]
"""(T, H, W, 3) RGB."""

Row = tuple[str, Clip, Clip]
"""Caption, real clip, generated clip."""

_SCALE = 3
_MARGIN = 32
_COLUMN_GAP = 28
_TITLE_SIZE, _HEADING_SIZE, _CAPTION_SIZE = 26, 17, 15
_TITLE_HEIGHT, _NOTE_HEIGHT, _HEADING_HEIGHT = 40, 26, 34
_CAPTION_HEIGHT, _ROW_GAP = 26, 18
_PAPER, _INK, _QUIET, _RULE = (250, 249, 246), (28, 30, 34), (104, 108, 116), (214, 211, 204)


@dataclass(frozen=True, kw_only=True)
class SheetText:
    """Words around the pictures."""

    title: str = "Real clips and generated ones with the same captions"
    note: str = ""
    """One line under the title, for instance the release and its distance; empty is none."""
    real: str = "real"
    generated: str = "generated"


@dataclass(frozen=True)
class _Page:
    draw: "ImageDraw"
    image: "Image"
    columns: tuple[int, int] = field(default=(0, 0))
    """Left edges of the real and the generated strips."""
    strip_width: int = 0

    def write(self, at: tuple[int, int], text: str, size: int, ink: tuple[int, int, int]) -> None:
        """One line of text with its top left corner at a place."""
        self.draw.text(at, text, fill=ink, font=typeface(size))


def write_contact_sheet(path: Path, rows: Sequence[Row], text: SheetText | None = None) -> None:
    """Write a PNG with a row for every (caption, real clip, generated clip), all of one shape.

    Raises LocalError for no rows or clips of different shapes.
    """
    shapes = {clip.shape for _, *clips in rows for clip in clips}
    if len(shapes) != 1:
        raise LocalError(
            f"a contact sheet needs rows of clips of one shape, got {sorted(shapes) or 'none'}"
        )
    strips = [
        (caption, frame_strip(real, scale=_SCALE), frame_strip(made, scale=_SCALE))
        for caption, real, made in rows
    ]
    write_png(path, _drawn(strips, text or SheetText()))


def _drawn(strips: Sequence[tuple[str, Clip, Clip]], text: SheetText) -> "Image":
    height, width, _ = strips[0][1].shape
    top = _MARGIN + _TITLE_HEIGHT + (_NOTE_HEIGHT if text.note else 0)
    row_height = _CAPTION_HEIGHT + height + _ROW_GAP
    size = (
        2 * _MARGIN + 2 * width + _COLUMN_GAP,
        top + _HEADING_HEIGHT + len(strips) * row_height + _MARGIN - _ROW_GAP,
    )
    page = _page(size, width)
    _head(page, text, top)
    for index, (caption, real, made) in enumerate(strips):
        _row(page, top + _HEADING_HEIGHT + index * row_height, caption, (real, made))
    return page.image


def _page(size: tuple[int, int], strip_width: int) -> _Page:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, _PAPER)
    columns = (_MARGIN, _MARGIN + strip_width + _COLUMN_GAP)
    return _Page(ImageDraw.Draw(image), image, columns, strip_width)


def _head(page: _Page, text: SheetText, top: int) -> None:
    width = page.image.width - 2 * _MARGIN
    page.write((_MARGIN, _MARGIN - 4), shortened(text.title, width, _TITLE_SIZE), _TITLE_SIZE, _INK)
    note = shortened(text.note, width, _CAPTION_SIZE)
    page.write((_MARGIN, _MARGIN + _TITLE_HEIGHT - 4), note, _CAPTION_SIZE, _QUIET)
    for left, heading in zip(page.columns, (text.real, text.generated), strict=True):
        page.write((left, top), heading, _HEADING_SIZE, _INK)
        rule = top + _HEADING_HEIGHT - 9
        page.draw.line((left, rule, left + page.strip_width - 1, rule), fill=_RULE)


def _row(page: _Page, top: int, caption: str, strips: tuple[Clip, Clip]) -> None:
    from PIL import Image

    line = shortened(caption, page.image.width - 2 * _MARGIN, _CAPTION_SIZE)
    page.write((_MARGIN, top), line, _CAPTION_SIZE, _QUIET)
    for left, strip in zip(page.columns, strips, strict=True):
        page.image.paste(Image.fromarray(strip), (left, top + _CAPTION_HEIGHT))
