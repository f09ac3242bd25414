"""What surrounds Ray, without Ray: what is said when it is missing or machines differ, and what is cleared."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kinoswarm_cli.data_commands import app
from kinoswarm_model.data.errors import EngineError
from kinoswarm_model.data.prepare import PrepareConfig, prepare
from kinoswarm_model.data.ray_machines import difference, look
from kinoswarm_model.data.ray_session import clear_left_behind, ray_engine


def test_a_machine_that_sees_other_files_or_has_other_packages_is_named(tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"video")
    here = look([str(clip)])
    assert difference("far", here, look([str(clip)])) is None
    clip.unlink()
    said = difference("far", here, look([str(clip)]))
    assert said is not None
    assert f"far does not see {clip}" in said
    assert "storage that all machines of the cluster have" in said
    old = type(here)(here.sizes, here.versions | {"torch": "2.0"})
    assert "far has torch 2.0, this machine" in str(difference("far", here, old))


def test_without_ray_it_says_what_to_install_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", None)
    before = dict(os.environ)
    with pytest.raises(EngineError, match=r"pip install 'kinoswarm\[ray\]'"), ray_engine():
        pytest.fail("there is no Ray")
    assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []


def test_a_client_address_is_refused() -> None:
    with pytest.raises(EngineError, match="give HOST:PORT"), ray_engine("ray://far:10001"):
        pytest.fail("it was joined")


def test_an_address_without_the_engine_is_refused(clips: Path, tmp_path: Path) -> None:
    arguments = ["prepare", str(clips), str(tmp_path / "out"), "--ray-address", "far:6379"]
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 2
    assert "--ray-address needs --engine ray" in ended.output


def test_the_local_engine_never_imports_ray(clips: Path, tmp_path: Path) -> None:
    prepare(clips, tmp_path / "out", PrepareConfig(num_clusters=2))
    assert "ray" not in sys.modules


def test_folders_of_killed_runs_are_cleared_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    gone, living, other = (
        tmp_path / name for name in ("ks-ray-4194305-a", f"ks-ray-{os.getpid()}-b", "ks-ray-notes")
    )
    for folder in (gone, living, other):
        (folder / "session").mkdir(parents=True)
    clear_left_behind(tmp_path, tmp_path.stat().st_uid + 1)
    assert gone.exists(), "another user's"
    clear_left_behind(tmp_path, tmp_path.stat().st_uid)
    assert sorted(tmp_path.iterdir()) == sorted([living, other])
