"""The program's face: help at once, numbered exit codes, one readable line for every error."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from protocol.samples import FOUNDER, invite

from kinoswarm_cli.errors_and_exits import ExitCode, exit_code_of, explain, say_and_code
from kinoswarm_cli.main import COMMANDS
from kinoswarm_protocol.errors import (
    BadSignature,
    Code,
    HashMismatch,
    KinoswarmError,
    LocalError,
    Refused,
    Unreachable,
    VersionMismatch,
)
from kinoswarm_protocol.invite import write_invite

HEAVY = ("torch", "hivemind", "diffusers", "numpy", "fastapi", "sqlalchemy", "vizdoom", "httpx")
HELP_LIMIT_S = 2.0
"""The aim is 0.4 s on an idle machine; a machine that runs other tests beside this one is slower."""


def kinoswarm(
    *arguments: str, stdin: str | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "kinoswarm_cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        input=stdin,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def heavy_imports(code: str) -> list[str]:
    """Which heavy libraries a fresh process has loaded after `code`."""
    report = f"import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.returncode == 0, result.stderr
    found: list[str] = eval(result.stdout.strip().splitlines()[-1])
    return found


def processor_s_of_children() -> float:
    """Processor time of finished children: a busy machine makes it no longer, unlike the time on the wall."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_quick_and_lists_every_command() -> None:
    before = processor_s_of_children()
    result = kinoswarm("--help")
    assert processor_s_of_children() - before < HELP_LIMIT_S
    assert result.returncode == ExitCode.OK
    assert all(name in result.stdout for name in COMMANDS)


def test_help_loads_no_heavy_library() -> None:
    code = (
        "from kinoswarm_cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert heavy_imports(code) == []


@pytest.mark.parametrize("command", ["join", "status", "download", "generate"])
def test_the_help_of_a_command_loads_no_heavy_library(command: str) -> None:
    code = (
        "from kinoswarm_cli.main import app\n"
        f"try:\n    app([{command!r}, '--help'])\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert heavy_imports(code) == []


def test_the_nodes_service_loads_neither_torch_nor_hivemind() -> None:
    code = "import kinoswarm_node.daemon, kinoswarm_node.wiring, kinoswarm_cli.run_join"
    assert not {"torch", "hivemind", "diffusers"} & set(heavy_imports(code))


def test_a_mistyped_command_gets_a_suggestion() -> None:
    result = kinoswarm("jion")
    assert result.returncode == ExitCode.USAGE
    assert "Did you mean 'join'" in result.stderr


def test_the_version_is_told() -> None:
    assert kinoswarm("--version").stdout.startswith("kinoswarm ")


def test_a_wrong_invite_is_one_readable_line(tmp_path: Path) -> None:
    result = kinoswarm("join", "hello", "--home", str(tmp_path), "--yes")
    assert result.returncode == ExitCode.LOCAL
    assert result.stderr.startswith("kinoswarm: 'hello' is no invite")
    assert "Traceback" not in result.stderr


def test_a_tampered_invite_is_refused_before_anything_starts(tmp_path: Path) -> None:
    text = write_invite(FOUNDER, invite())
    middle = len(text) // 2
    other = "A" if text[middle] != "A" else "B"
    result = kinoswarm(
        "join", text[:middle] + other + text[middle + 1 :], "--home", str(tmp_path), "-y"
    )
    assert result.returncode == ExitCode.VERIFICATION
    assert "altered or is incomplete; ask for it again" in result.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = kinoswarm("--debug", "join", "hello", "--home", str(tmp_path))
    assert result.returncode == ExitCode.LOCAL
    assert "Traceback" in result.stderr


def test_a_bad_setting_names_setting_value_and_range(tmp_path: Path) -> None:
    result = kinoswarm("join", "x", "--home", str(tmp_path), "--threads", "-4")
    assert result.returncode == ExitCode.LOCAL
    assert "setting 'threads' = -4 is not allowed: CPU threads" in result.stderr


def test_nobody_there_to_agree_is_said(tmp_path: Path) -> None:
    text = write_invite(FOUNDER, invite())
    result = kinoswarm("join", text, "--home", str(tmp_path), stdin="")
    assert result.returncode == ExitCode.LOCAL
    assert "CC0-1.0" in result.stderr
    assert "rendered corridors" in result.stderr
    assert "pass --yes" in result.stderr


def test_joining_without_ever_having_had_an_invite_says_so(tmp_path: Path) -> None:
    result = kinoswarm("join", "--home", str(tmp_path))
    assert result.returncode == ExitCode.LOCAL
    assert "kinoswarm join INVITE" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LocalError("x"), ExitCode.LOCAL),
        (Unreachable("x"), ExitCode.UNREACHABLE),
        (Refused(Code.NOT_PERMITTED, "x"), ExitCode.REFUSED),
        (VersionMismatch("x"), ExitCode.REFUSED),
        (HashMismatch("x"), ExitCode.VERIFICATION),
        (BadSignature("x"), ExitCode.VERIFICATION),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error: KinoswarmError, code: ExitCode) -> None:
    assert exit_code_of(error) is code
    assert explain(error).startswith("kinoswarm: x")


def test_a_full_disk_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/data/clip")
    assert say_and_code(error) == ExitCode.LOCAL
    said = capsys.readouterr().err
    assert said.startswith("kinoswarm: no space left on the disk (/data/clip); free some")


def test_a_missing_part_of_the_program_says_what_to_install(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = ModuleNotFoundError("No module named 'torch'", name="torch")
    assert say_and_code(error) == ExitCode.LOCAL
    assert "pip install 'kinoswarm[node]'" in capsys.readouterr().err


def test_a_bug_of_ours_shows_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert say_and_code(ZeroDivisionError("oh")) == ExitCode.UNEXPECTED
    said = capsys.readouterr().err
    assert "ZeroDivisionError: oh" in said
    assert "please report it" in said
