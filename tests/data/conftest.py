"""A small folder of captioned clips: two places that differ in colour; a text encoder, loaded once."""

from pathlib import Path

import numpy as np
import pytest

from kinoswarm_model.data.text import TextEncoder
from kinoswarm_model.video_io import write_mp4


def coloured_clip(seed: int, red: bool) -> np.ndarray:
    """(8, 32, 32, 3): a textured wall that slides, reddish or bluish."""
    rng = np.random.default_rng(seed)
    wall = np.zeros((32, 32, 3), dtype=np.uint8)
    wall[..., 0 if red else 2] = rng.integers(120, 255, (32, 32), dtype=np.uint8)
    return np.stack([np.roll(wall, shift, axis=1) for shift in range(8)])


def write_clips(folder: Path, count: int) -> Path:
    """`count` clips, reds and blues in turn, with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        red = index % 2 == 0
        write_mp4(folder / f"{index:03d}.mp4", coloured_clip(index, red), 8)
        colour = "red" if red else "blue"
        (folder / f"{index:03d}.txt").write_text(f"the camera slides along a {colour} wall\n")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Contents by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("data") / "clips", 24)


@pytest.fixture(scope="session")
def encoder() -> TextEncoder:
    return TextEncoder.load()
