"""A no, and Ctrl-C at a question, end the command with the code that is documented, and leave nothing behind."""

from pathlib import Path
from typing import Any

import pytest
import typer
from node.scripted import World

from kinoswarm_cli.consent import obtain_consent
from kinoswarm_cli.errors_and_exits import ExitCode
from kinoswarm_cli.questions import asked_passphrase, says_yes
from kinoswarm_node.swarm_folder import SwarmFolder


def no_answer(*_: Any, **__: Any) -> str:
    raise typer.Abort


def test_who_says_no_to_the_terms_has_not_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question, err: False)
    world = World(tmp_path)
    invite, folder = world.node().invite, SwarmFolder(tmp_path / "new", world.swarm)
    with pytest.raises(typer.Exit) as ended:
        obtain_consent(invite, folder, yes=False, now_ms=0)
    assert ended.value.exit_code == ExitCode.INTERRUPTED
    assert folder.consent() is None
    assert "Not joined" in capsys.readouterr().err


def test_ctrl_c_at_a_question_is_no_bug_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.confirm", no_answer)
    monkeypatch.setattr("typer.prompt", no_answer)
    with pytest.raises(KeyboardInterrupt):
        says_yes("Join?")
    with pytest.raises(KeyboardInterrupt):
        asked_passphrase()
