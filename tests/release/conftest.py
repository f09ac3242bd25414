"""One tiny release for all tests of this folder, and cheap copies of it to damage."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from release.tiny_release import write_tiny_release

from kinoswarm_model.jobs import JobProgress, ReleaseDone

Damage = Callable[[str, bytes], Path]
"""(relative path, new contents) -> a copy of the release in which that file has these contents."""


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReleaseDone, list[JobProgress]]:
    return write_tiny_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def release_dir(written: tuple[ReleaseDone, list[JobProgress]]) -> Path:
    return Path(written[0].release_dir)


@pytest.fixture
def damaged(release_dir: Path, tmp_path: Path) -> Damage:
    """Gives a copy of the release in which one file has other contents."""

    def damage(path: str, raw: bytes) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(release_dir, folder, copy_function=os.link)
        (folder / path).unlink()
        (folder / path).write_bytes(raw)
        return folder

    return damage
