"""Text on pictures in Pillow's own typeface, so that they look alike on every machine. Owns fitting it into a line."""

import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

_MOST_LETTERS = 300
"""More never fits; keeps the search for the cut short."""
_PROBE_SIZE = 15


def shortened(text: str, width: int, size: int) -> str:
    """The text on one line of `width` pixels, with an ellipsis where it is too long."""
    line, font = _printable(" ".join(text[:_MOST_LETTERS].split())), typeface(size)
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"


@cache
def typeface(size: int) -> "FreeTypeFont | ImageFont":
    """The typeface at a size in pixels."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _printable(text: str) -> str:
    """The text with letters that the typeface lacks reduced to their base (é to e), or to a question mark."""
    return "".join(_letter(character) for character in text)


@cache
def _letter(character: str) -> str:
    base = "-" if unicodedata.category(character) == "Pd" else character
    for candidate in (character, unicodedata.normalize("NFKD", base)[0]):
        if bytes(_mask(candidate)) != bytes(_mask("\uffff")):
            return candidate
    return "?"


def _mask(character: str) -> Any:
    """What is drawn for a character; U+FFFF shows what is drawn for letters that are not there."""
    return typeface(_PROBE_SIZE).getmask(character)
