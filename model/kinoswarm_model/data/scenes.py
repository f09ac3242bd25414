"""The calm places of Freedoom's maps that `data render` films. Owns their words and what must be seen of them.

Captions must stay truthful: a clip is only kept when enough of its picture has the place's colour.
"""

from dataclasses import dataclass
from enum import StrEnum


class Colour(StrEnum):
    """Families of colours that a person would call by these names."""

    RED = "red"
    GREEN = "green"
    BLUE = "blue"
    OLIVE = "olive"
    """Greenish grey."""
    TAN = "tan"
    """Yellow and brown."""
    GREY = "grey"


@dataclass(frozen=True, kw_only=True)
class View:
    """A scene seen about as the map's author meant it: from the player's start, in the start's own direction."""

    spread_degrees: float
    """Either side of that direction."""
    most_tics: int
    """Of walking ahead before the clip begins; 0 films from the start itself."""


@dataclass(frozen=True)
class Scene:
    """One place: a map of a game file that the vizdoom package ships, and how a person would describe it."""

    name: str
    """For file names."""
    wad: str
    map: str
    place: str
    """How captions call it."""
    colour: Colour
    """What its description promises."""
    least_share: float
    """Of the picture's pixels in that colour, in every frame; 0 takes any picture."""
    start_share: float = 0.4
    """Of the tries, how many begin near the player's start, so that a scene stays one place."""
    most_share_untold: float = 0.003
    """Of the picture's pixels, for an object that captions have no word for."""
    view: View | None = None
    """None wanders and looks anywhere."""


SCENES = (
    Scene("hedge-garden", "freedoom2.wad", "MAP11", "a garden of green hedges", Colour.GREEN, 0.2),
    Scene("vine-ruins", "freedoom1.wad", "E1M8", "sandstone ruins with vines", Colour.TAN, 0.3),
    Scene("red-cavern", "freedoom1.wad", "E3M1", "a cavern of bright red rock", Colour.RED, 0.25),
    Scene("canyon", "freedoom2.wad", "MAP10", "a canyon of brown rock", Colour.TAN, 0.4),
    Scene(
        "blue-pool",
        "freedoom1.wad",
        "E4M2",
        "a stone hall flooded with blue water",
        Colour.BLUE,
        0.1,
    ),
    Scene("grey-hall", "freedoom1.wad", "E2M3", "a hall of grey stone", Colour.GREY, 0.5),
    Scene("mossy-fort", "freedoom2.wad", "MAP21", "a fort of mossy stone", Colour.OLIVE, 0.4),
    Scene("brick-tunnels", "freedoom2.wad", "MAP25", "tunnels of golden brick", Colour.TAN, 0.5),
)

WORD_BY_OBJECT = {
    "BigTree": "a bare tree",
    "TorchTree": "a tree stump",
    "Stalagtite": "a small green tree",
    "Column": "a lamp",
    "HealthBonus": "a green flask",
    "Stimpack": "a medicine can",
}
"""Objects that captions mention, as Freedoom draws them. Clips that show another object are not kept."""

NOT_OBJECTS = frozenset({"DoomPlayer", "Self"})
"""Names under which the game lists the camera's own body."""
