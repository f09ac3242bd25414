"""Durable files: the old bytes or the new ones, and a full disk is said in words."""

import errno
import os
from pathlib import Path

import pytest

from kinoswarm_network.durable import (
    create_atomic,
    disk_errors,
    require_space,
    write_atomic,
)
from kinoswarm_protocol.errors import LocalError


def test_a_written_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_creating_never_replaces(tmp_path: Path) -> None:
    assert create_atomic(tmp_path / "file", b"first")
    assert not create_atomic(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always-full device")
def test_a_full_disk_says_how_much_was_needed_and_where() -> None:
    full = Path("/dev/full")
    with (
        pytest.raises(LocalError, match="the disk is full: 5 bytes were needed at /dev/full"),
        disk_errors(full, 5),
    ):
        full.write_bytes(b"12345")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()
    (path / "inside").touch()
    with pytest.raises(OSError, match="directory"):
        write_atomic(path, b"new")
    assert os.listdir(tmp_path) == ["file"]


def test_a_read_only_disk_says_what_to_check() -> None:
    with (
        pytest.raises(LocalError, match="check its owner and permissions"),
        disk_errors(Path("somewhere"), 1),
    ):
        raise OSError(errno.EROFS, "Read-only file system")


def test_space_is_required_before_a_large_file_begins(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(LocalError, match=f"{2**62} bytes are needed"):
        require_space(tmp_path, 2**62)
