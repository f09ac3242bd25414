"""Several machines under one name, as a volunteer does it: papers on disk, commands, the node's hello, `why`."""

import asyncio
import base64
import stat
from pathlib import Path

import pytest
from node.scripted import NOW_MS, World
from node.test_daemon import live
from protocol.samples import ACCOUNT, COORDINATOR, NODE
from typer.testing import CliRunner

from kinoswarm_cli.account_commands import app
from kinoswarm_cli.identity_commands import app as identity_app
from kinoswarm_network.identity import load_key, load_or_create_key
from kinoswarm_node import account_files, joining
from kinoswarm_node.account_files import PREFIX, delegation_from, delegation_text, own_delegation
from kinoswarm_node.daemon import Daemon
from kinoswarm_node.home import Home
from kinoswarm_node.why import explain
from kinoswarm_protocol.accounts import delegate, open_delegation
from kinoswarm_protocol.errors import BadSignature, KinoswarmError, LocalError
from kinoswarm_protocol.messages import Hello, Welcome

DAY_MS = 86_400_000
WORDS = "four plain words here"


def run(*words: str) -> str:
    """The command's output; its error is raised."""
    result = CliRunner(env={"KINOSWARM_PASSPHRASE": WORDS}).invoke(app, list(words))
    if isinstance(result.exception, KinoswarmError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_commands_put_two_machines_under_one_name(tmp_path: Path) -> None:
    desk, laptop = Home(tmp_path / "desk"), Home(tmp_path / "laptop")
    made = run("create", "--name", "otters", "--home", str(desk.root))
    account = load_key(desk.account_key_path).peer_id
    assert account in made
    assert stat.S_IMODE(desk.account_key_path.stat().st_mode) == 0o600
    machine = load_or_create_key(laptop.identity_path).peer_id
    said = run("delegate", machine, "--name", "otters", "--home", str(desk.root))
    line = said.split()[-1]
    assert line.startswith(PREFIX)
    run("use", line, "--home", str(laptop.root))
    found = own_delegation(laptop, machine)
    assert found is not None
    assert found[1].account == account
    assert "'otters'" in run("show", "--home", str(laptop.root))
    assert account in run("show", "--home", str(desk.root))


def test_a_paper_is_taken_from_a_file_too_and_another_machines_is_not(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    machine = load_or_create_key(home.identity_path).peer_id
    paper = tmp_path / "paper.txt"
    paper.write_text(delegation_text(delegate(ACCOUNT, machine, "otters", NOW_MS, DAY_MS)) + "\n")
    run("use", str(paper), "--home", str(home.root))
    with pytest.raises(BadSignature, match="is for machine"):
        run(
            "use",
            delegation_text(delegate(ACCOUNT, NODE.peer_id, "otters", NOW_MS, DAY_MS)),
            *("--home", str(home.root)),
        )
    assert own_delegation(home, machine) is not None, "the one before stays"


@pytest.mark.parametrize("typed", ["", "nonsense", PREFIX, PREFIX + "A", PREFIX + "x" * 9000])
def test_a_damaged_paper_is_explained(tmp_path: Path, typed: str) -> None:
    with pytest.raises(KinoswarmError):
        open_delegation(delegation_from(typed), NODE.peer_id)


def test_an_account_is_never_replaced_and_moves_under_a_passphrase(tmp_path: Path) -> None:
    old, new, backup = tmp_path / "old", tmp_path / "new", tmp_path / "account.txt"
    run("create", "--name", "otters", "--home", str(old))
    with pytest.raises(LocalError, match="holds an account already"):
        run("create", "--name", "again", "--home", str(old))
    run("export", str(backup), "--home", str(old))
    run("import", str(backup), "--home", str(new))
    assert load_key(Home(new).account_key_path) == load_key(Home(old).account_key_path)
    as_machine = CliRunner(env={"KINOSWARM_PASSPHRASE": WORDS}).invoke(
        identity_app, ["import", str(backup), "--home", str(tmp_path / "third")]
    )
    assert isinstance(as_machine.exception, LocalError), "an account is not taken for a machine"


def test_without_an_account_key_nothing_is_delegated_and_the_way_to_one_is_told(
    tmp_path: Path,
) -> None:
    with pytest.raises(LocalError, match="account create"):
        run("delegate", NODE.peer_id, "--name", "otters", "--home", str(tmp_path))
    load_or_create_key(Home(tmp_path).identity_path)
    with pytest.raises(LocalError, match="counts for itself"):
        run("leave", "--home", str(tmp_path))


def counted(world: World) -> None:
    """A scripted coordinator that believes every paper."""
    plain = world.answer

    def answer(request):  # type: ignore[no-untyped-def]
        said = plain(request)
        if isinstance(request.body, Hello) and request.body.delegation is not None:
            account = open_delegation(request.body.delegation, NODE.peer_id).body.account
            return Welcome(
                charter=said.charter,
                amendments=[],
                notice="",
                account=account,
            )
        return said

    world.answer = answer  # type: ignore[method-assign]


def test_a_node_shows_its_paper_at_hello_and_why_says_for_whom_it_counts(tmp_path: Path) -> None:
    world = World(tmp_path)
    counted(world)
    node = world.node()
    home = Home(node.settings.home)
    raw = delegate(ACCOUNT, NODE.peer_id, "otters", NOW_MS, DAY_MS)
    account_files.keep_delegation(home, NODE.peer_id, raw)
    live(Daemon(node, once=True))
    assert any(isinstance(body, Hello) and body.delegation == raw for body in world.bodies)
    assert node.board.status.account == ACCOUNT.peer_id
    why = explain(node.board.status, True, [], node.settings, NOW_MS)
    assert f"It counts for the account 'otters' ({ACCOUNT.peer_id})." in why.credit


async def _greet_twice(world: World, home: Home) -> list[bytes | None]:
    node = world.node()
    await joining.greet_again(node)
    await joining.greet_again(node)
    raw = delegate(ACCOUNT, NODE.peer_id, "otters", NOW_MS, DAY_MS)
    account_files.keep_delegation(home, NODE.peer_id, raw)
    await joining.greet_again(node)
    await joining.greet_again(node)
    return [body.delegation for body in world.bodies if isinstance(body, Hello)]


def test_a_running_node_tells_of_a_new_paper_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    told = asyncio.run(_greet_twice(world, Home(tmp_path / "home")))
    assert told[0] is None
    assert told[1] is not None
    assert len(told) == 2


def test_a_paper_that_is_not_this_machines_is_not_shown_to_anybody(tmp_path: Path) -> None:
    home = Home(tmp_path)
    raw = delegate(ACCOUNT, COORDINATOR.peer_id, "x", NOW_MS, DAY_MS)
    home.delegation_path.write_text(delegation_text(raw))
    assert own_delegation(home, NODE.peer_id) is None
    home.delegation_path.write_bytes(base64.b64encode(b"\x00" * 600))
    assert own_delegation(home, NODE.peer_id) is None
