"""A swarm of one-frame clips is a swarm of pictures: an image folder in, a .png out."""

from pathlib import Path

import numpy as np
import pytest
from data.conftest import coloured_clip
from PIL import Image
from release.small_swarms import SmallSwarm, run_small_swarm
from typer.testing import CliRunner

from kinoswarm_cli.main import app
from kinoswarm_model.data.prepare import PrepareConfig, prepare
from kinoswarm_protocol.errors import LocalError


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> SmallSwarm:
    folder = tmp_path_factory.mktemp("pictures")
    source = folder / "source"
    source.mkdir()
    for index in range(12):
        Image.fromarray(coloured_clip(index, index % 2 == 0)[0]).save(source / f"{index:02d}.png")
        (source / f"{index:02d}.txt").write_text("a red wall" if index % 2 == 0 else "a blue wall")
    config = PrepareConfig(num_clusters=2, frames=1, fps=1)
    manifest = prepare(source, folder / "data", config)
    return run_small_swarm(folder / "data", manifest, folder / "work")


def generate(swarm: SmallSwarm, out: Path, *options: str) -> object:
    arguments = ["generate", "a red wall", "--model", str(swarm.release), "--out", str(out)]
    return CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)


def test_a_picture_is_drawn_by_the_same_command(swarm: SmallSwarm, tmp_path: Path) -> None:
    generate(swarm, tmp_path / "a.png", "--scale", "2")
    generate(swarm, tmp_path / "b.png", "--scale", "2")
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape == (64, 64, 3)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_card_speaks_of_pictures(swarm: SmallSwarm) -> None:
    card = (swarm.release / "README.md").read_text(encoding="utf-8")
    assert "Pictures of 32×32 pixels. `samples/` holds these" in card


def test_clips_of_several_frames_are_no_picture(swarm: SmallSwarm, tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="ask for --frames 1"):
        generate(swarm, tmp_path / "a.png", "--frames", "3")
