"""`data inspect`: what is counted, what is shown, and what a damaged folder says."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kinoswarm_cli.main import app
from kinoswarm_model.data.data_manifest import read_manifest
from kinoswarm_model.data.inspecting import inspect_data, write_cluster_sheet
from kinoswarm_model.data.prepare import PrepareConfig, prepare
from kinoswarm_protocol.errors import MalformedBytes


@pytest.fixture(scope="module")
def data(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("inspected") / "data"
    prepare(clips, out, PrepareConfig(num_clusters=2, shard_clips=8))
    return out


def test_sizes_balance_and_words_of_every_cluster_are_told(data: Path) -> None:
    view = inspect_data(data)
    assert (view.clips, view.sources, view.largest_by_mean) == (24, 24, 1.0)
    red = next(cluster for cluster in view.clusters if cluster.label == "red wall")
    assert red.clips + red.heldout == 12
    assert red.shards == 2
    assert [(entry.word, entry.share) for entry in red.words] == [("red", 1.0), ("wall", 1.0)]


def test_the_sheet_shows_a_row_of_the_clusters_own_colours(data: Path, tmp_path: Path) -> None:
    write_cluster_sheet(tmp_path / "sheet.png", data)
    pixels = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    rows = np.split(pixels[24:-24], 2)
    clusters = read_manifest(data).clusters
    for row, cluster in zip(rows, clusters, strict=True):
        shown = row[30:110, 30:400].reshape(-1, 3)
        red, _, blue = shown[shown.sum(axis=1) < 500].mean(axis=0)
        assert (red > blue) == (cluster.label == "red wall")


def test_the_command_prints_words_for_people_and_json_for_programs(
    data: Path, tmp_path: Path
) -> None:
    said = CliRunner().invoke(
        app, ["data", "inspect", str(data), "--sheet", str(tmp_path / "s.png")]
    )
    assert said.exit_code == 0, said.output
    assert "24 clips of 24 files: 8 frames of 32x32 at 8/s" in said.output
    assert (tmp_path / "s.png").is_file()
    found = json.loads(CliRunner().invoke(app, ["data", "inspect", str(data), "--json"]).output)
    assert [cluster["clips"] for cluster in found["clusters"]] == [10, 10]


def test_a_damaged_shard_is_named(clips: Path, tmp_path: Path) -> None:
    prepare(clips, tmp_path / "data", PrepareConfig(num_clusters=1))
    shard = next((tmp_path / "data" / "shards").iterdir())
    shard.write_bytes(b"torn")
    with pytest.raises(MalformedBytes, match=shard.name):
        inspect_data(tmp_path / "data")
