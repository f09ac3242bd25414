"""The calm places of Freedoom's maps that `data render` films. Owns their words; captions must stay truthful."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scene:
    """One place: a map of a game file that the vizdoom package ships, and how a person would describe it."""

    name: str
    """For file names."""
    wad: str
    map: str
    place: str
    """How captions call it."""


SCENES = (
    Scene("hedge-garden", "freedoom2.wad", "MAP11", "a garden of tall green hedges"),
    Scene("mossy-fort", "freedoom2.wad", "MAP21", "a fort of pale mossy stone"),
    Scene("canyon", "freedoom2.wad", "MAP23", "a brown canyon under a red sky"),
    Scene("red-cavern", "freedoom1.wad", "E3M1", "a cavern of bright red rock"),
    Scene("courtyard", "freedoom1.wad", "E1M5", "a sandy courtyard under white clouds"),
    Scene("blue-pool", "freedoom1.wad", "E1M7", "a terrace with deep blue water"),
    Scene("grey-hall", "freedoom1.wad", "E2M3", "a hall of grey stone"),
    Scene("brick-tunnels", "freedoom2.wad", "MAP25", "tunnels of golden brick"),
)

WORD_BY_OBJECT = {
    "BigTree": "a bare tree",
    "TorchTree": "a dead tree",
    "Stalagtite": "a stalagmite",
    "TechPillar": "a metal pillar",
    "TechLamp": "a lamp",
    "TechLamp2": "a lamp",
    "Column": "a lamp",
    "Candlestick": "a candle",
    "Candelabra": "a candelabra",
    "GreenTorch": "a green torch",
    "BlueTorch": "a blue torch",
    "RedTorch": "a red torch",
    "ShortGreenTorch": "a green torch",
    "ShortBlueTorch": "a blue torch",
    "ShortRedTorch": "a red torch",
    "TallGreenColumn": "a green column",
    "TallRedColumn": "a red column",
    "HealthBonus": "a small potion",
    "ArmorBonus": "a helmet",
    "GreenArmor": "a green vest",
    "BlueArmor": "a blue vest",
    "Stimpack": "a medicine box",
    "Medikit": "a medicine box",
    "ExplosiveBarrel": "a barrel",
    "Backpack": "a backpack",
    "BlueCard": "a blue card",
    "RedCard": "a red card",
    "YellowCard": "a yellow card",
}
"""Objects that captions mention when they fill enough of the picture; others are left unsaid."""
