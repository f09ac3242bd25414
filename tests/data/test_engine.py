"""The seam between `data prepare` and what computes it: portable functions, one result, finished rows are kept."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from data.conftest import files_of
from data.elsewhere import ElsewhereEngine

from kinoswarm_model.data.cutting import Cutting
from kinoswarm_model.data.decode import Geometry
from kinoswarm_model.data.errors import EngineError
from kinoswarm_model.data.prepare import PrepareConfig, prepare
from kinoswarm_model.data.row_file import RowFile
from kinoswarm_model.data.sources import Source

CONFIG = PrepareConfig(num_clusters=2)


@pytest.fixture(scope="module")
def local(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("local") / "data"
    prepare(clips, out, CONFIG)
    return files_of(out)


def test_another_engine_gives_the_same_bytes(
    clips: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    engine = ElsewhereEngine()
    prepare(clips, tmp_path / "out", CONFIG, engine=engine)
    assert files_of(tmp_path / "out") == local
    assert engine.taken == [24, 1, 1], "videos, batches of captions, batches of clips"


@pytest.mark.parametrize("last", [7, 25])
def test_when_an_engine_breaks_off_finished_rows_are_kept_for_the_next_one(
    last: int, clips: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    """The moments: after seven videos, and after the captions."""
    out = tmp_path / "out"
    with pytest.raises(EngineError, match="broke off"):
        prepare(clips, out, CONFIG, engine=ElsewhereEngine(last))
    assert not out.exists()
    engine = ElsewhereEngine()
    prepare(clips, out, CONFIG, engine=engine)
    assert engine.taken[0] == 24 - min(last, 24)
    assert files_of(out) == local


def test_a_video_that_is_not_there_is_told_and_not_called_undecodable(tmp_path: Path) -> None:
    cutting = Cutting(geometry=Geometry(frames=8, height=32, width=32, fps=8), clips_per_video=4)
    with pytest.raises(EngineError, match="leave the videos where all machines see them"):
        cutting(Source(tmp_path / "gone.mp4", "gone.mp4", "a wall"))


def test_rows_are_read_by_another_process_and_a_shorter_file_is_noticed(tmp_path: Path) -> None:
    rows: RowFile[np.uint8] = RowFile(tmp_path / "rows", np.uint8, (2,))
    rows.append(np.arange(6, dtype=np.uint8).reshape(3, 2))
    parts = [pickle.loads(pickle.dumps(part)) for part in rows.parts(2, 1)]
    assert [part.read().tolist() for part in parts] == [[[2, 3], [4, 5]]]
    rows.truncate(2)
    with pytest.raises(EOFError, match="not whole"):
        parts[0].read()
