"""Key files: made once, private, and damage is told in words."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoswarm_network.identity import (
    CorruptKeyFile,
    key_text,
    load_key,
    load_or_create_key,
    parse_key_text,
    write_libp2p_identity,
)
from kinoswarm_protocol.errors import LocalError, MalformedBytes
from kinoswarm_protocol.keys import KeyPair


def test_a_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "home" / "key"
    key = load_or_create_key(path)
    assert load_or_create_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600


def test_loose_permissions_are_tightened(tmp_path: Path) -> None:
    path = tmp_path / "key"
    load_or_create_key(path)
    path.chmod(0o644)
    load_key(path)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"kinoswarm-key-1 00 x\n", b"a" * 4000])
def test_a_damaged_key_file_says_where_it_is_and_what_to_do(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(damage)
    with pytest.raises(CorruptKeyFile, match=r"key is damaged .* restore it from an export"):
        load_or_create_key(path)
    assert path.read_bytes() == damage


def test_a_mistyped_seed_is_told_by_the_peer_id(tmp_path: Path) -> None:
    text = key_text(KeyPair(bytes(32))).replace("0" * 8, "1" * 8, 1)
    with pytest.raises(MalformedBytes, match="does not belong to"):
        parse_key_text(text)


def test_a_missing_key_file_is_a_local_error(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot read the key file"):
        load_key(tmp_path / "key")


@given(st.binary(min_size=32, max_size=32))
def test_a_key_survives_export_and_import(seed: bytes) -> None:
    assert parse_key_text(key_text(KeyPair(seed))) == KeyPair(seed)


@given(st.text(max_size=300))
def test_no_text_crashes_the_key_reader(text: str) -> None:
    with pytest.raises(MalformedBytes):
        parse_key_text("kinoswarm-key-1 " + text)


def test_libp2p_reads_the_identity_as_the_same_peer(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path / "key")
    write_libp2p_identity(key, tmp_path / "key.libp2p")
    raw = (tmp_path / "key.libp2p").read_bytes()
    assert raw == key.libp2p_private_key()
    assert (tmp_path / "key.libp2p").stat().st_mode & 0o777 == 0o600


def test_programs_that_start_together_share_one_new_key(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from kinoswarm_network.identity import *; "
        "print(load_or_create_key(Path(sys.argv[1])).peer_id)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "key")],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        for _ in range(3)
    ]
    assert len({process.communicate()[0] for process in started}) == 1
