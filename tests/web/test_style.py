"""The style sheet's colours against the contrast that WCAG 2.2 asks (1.4.3: 4.5 for text, 1.4.11: 3 for shapes)."""

import re

import pytest

from kinoswarm_coordinator.web.assets import load_assets
from kinoswarm_coordinator.web.curve import NUM_HUES

STYLE = load_assets().files["style.css"].data.decode()
HUES = [f"hue-{index}" for index in range(NUM_HUES)]
TEXT = [
    (ink, paper)
    for paper in ("screen", "card")
    for ink in ("ink", "soft", "lamp", "leaf", "wine", "sea")
] + [("film-ink", "film"), ("film-soft", "film"), ("on-lamp", "lamp"), ("ink", "inset")]


def palette(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))
    if scheme == "dark":
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark))
    return found


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("ink", "paper"), TEXT + [("on-hue", hue) for hue in HUES])
def test_text_can_be_read(scheme: str, ink: str, paper: str) -> None:
    colours = palette(scheme)
    assert contrast(colours[ink], colours[paper]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("hue", HUES)
def test_curves_stand_out_from_their_card(scheme: str, hue: str) -> None:
    colours = palette(scheme)
    assert contrast(colours[hue], colours["card"]) >= 3


def test_the_style_loads_nothing_and_names_every_hue() -> None:
    assert "@import" not in STYLE
    assert "url(" not in STYLE
    assert all(f".{hue} {{" in STYLE for hue in HUES)
