"""A key under a passphrase: comes back whole, opens for nobody else, never replaces another key."""

import stat
from pathlib import Path

import pytest
from protocol.samples import COORDINATOR, NODE
from typer.testing import CliRunner

from kinoswarm_cli.identity_commands import app
from kinoswarm_network.identity import load_key, load_or_create_key
from kinoswarm_node.home import Home, locked
from kinoswarm_node.identity_backup import adopt_key, open_key, seal_key
from kinoswarm_protocol.errors import LocalError

WORDS = "four plain words here"


def test_a_key_comes_back_with_its_passphrase_and_only_with_it() -> None:
    text = seal_key(NODE, WORDS)
    assert open_key(text, WORDS) == NODE
    assert NODE.seed.hex() not in text
    assert NODE.peer_id not in text
    assert seal_key(NODE, WORDS) != text, "salt and nonce are drawn anew"
    with pytest.raises(LocalError, match="the passphrase is another one"):
        open_key(text, WORDS + "!")


@pytest.mark.parametrize(
    "text",
    ["", "kinoswarm-backup-1", "kinoswarm-backup-2 a b c", "kinoswarm-backup-1 a b c", "x " * 9000],
)
def test_a_damaged_backup_is_said(text: str) -> None:
    with pytest.raises(LocalError, match=r"a backup is one line|damaged"):
        open_key(text, WORDS)


def test_a_flipped_letter_is_noticed() -> None:
    text = seal_key(NODE, WORDS)
    middle = len(text) - 20
    other = "A" if text[middle] != "A" else "B"
    with pytest.raises(LocalError, match="damaged"):
        open_key(text[:middle] + other + text[middle + 1 :], WORDS)


def test_an_import_never_replaces_another_key_nor_that_of_a_running_node(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    adopt_key(home, NODE)
    adopt_key(home, NODE)
    assert stat.S_IMODE(home.identity_path.stat().st_mode) == 0o600
    with pytest.raises(LocalError, match=f"already holds the key of {NODE.peer_id}"):
        adopt_key(home, COORDINATOR)
    with locked(home), pytest.raises(LocalError, match="another node runs"):
        adopt_key(home, NODE)
    assert load_key(home.identity_path) == NODE


def test_the_commands_move_an_identity_to_another_machine(tmp_path: Path) -> None:
    old, new, backup = tmp_path / "old", tmp_path / "new", tmp_path / "key.txt"
    key = load_or_create_key(old / "identity.key")
    run = CliRunner(env={"KINOSWARM_PASSPHRASE": WORDS}).invoke
    exported = run(app, ["export", str(backup), "--home", str(old)])
    assert key.peer_id in exported.output
    assert isinstance(run(app, ["export", str(backup), "--home", str(old)]).exception, LocalError)
    imported = run(app, ["import", str(backup), "--home", str(new)])
    assert key.peer_id in imported.output
    assert run(app, ["show", "--home", str(new)]).output.strip() == key.peer_id
