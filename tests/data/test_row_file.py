"""Row files: what is appended comes back, and half a row that a kill left is cut off."""

from pathlib import Path

import numpy as np
import pytest

from kinoswarm_model.data.row_file import RowFile


def test_rows_come_back_by_index_and_in_batches(tmp_path: Path) -> None:
    rows: RowFile[np.float32] = RowFile(tmp_path / "rows", np.float32, (2, 3))
    wanted = np.arange(30, dtype=np.float32).reshape(5, 2, 3)
    rows.append(wanted[:2])
    rows.append(wanted[2:])
    np.testing.assert_array_equal(rows.take([4, 0, 4]), wanted[[4, 0, 4]])
    assert [len(batch) for batch in rows.batches(2)] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(list(rows.batches(2, start=1))), wanted[1:])
    assert rows.take([]).shape == (0, 2, 3)


def test_half_a_row_is_cut_off_and_appending_goes_on_behind_whole_ones(tmp_path: Path) -> None:
    """The moment: killed in the middle of writing the third row."""
    path = tmp_path / "rows"
    path.write_bytes(bytes(range(8)) + b"torn"[:3])
    rows: RowFile[np.uint8] = RowFile(path, np.uint8, (4,))
    assert len(rows) == 2
    rows.append(np.full((1, 4), 9, np.uint8))
    assert path.read_bytes() == bytes(range(8)) + b"\x09" * 4


def test_rows_of_another_shape_and_rows_that_are_not_there_are_refused(tmp_path: Path) -> None:
    rows: RowFile[np.uint8] = RowFile(tmp_path / "rows", np.uint8, (4,))
    with pytest.raises(ValueError, match="rows of"):
        rows.append(np.zeros((1, 5), np.uint8))
    with pytest.raises(EOFError, match="row 0 of 0"):
        rows.take([0])
