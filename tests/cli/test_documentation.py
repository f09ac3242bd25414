"""What a user can type or set is documented; documents never drift from the program."""

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from kinoswarm_cli.errors_and_exits import ExitCode
from kinoswarm_cli.main import COMMANDS
from kinoswarm_coordinator.settings import CoordinatorSettings
from kinoswarm_node.settings import NodeSettings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_in_the_readme(name: str) -> None:
    readme = (ROOT / "README.md").read_text()
    assert re.search(rf"`?kinoswarm {name}|make {name}", readme)


@pytest.mark.parametrize("code", list(ExitCode))
def test_every_exit_code_is_documented(code: ExitCode) -> None:
    assert f"| {code.value} |" in (ROOT / "docs" / "exit-codes.md").read_text()


@pytest.mark.parametrize("settings", [CoordinatorSettings, NodeSettings])
def test_every_setting_says_what_it_is(settings: type[BaseSettings]) -> None:
    undocumented = [name for name, field in settings.model_fields.items() if not field.description]
    assert undocumented == []


def test_documents_name_only_files_that_exist() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for link in re.findall(r"\]\(((?!https?:)[^)#]+)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name} links to {link}"


def test_every_promise_names_a_test_that_exists() -> None:
    document = (ROOT / "docs" / "volunteer-promises.md").read_text()
    rows = [line for line in document.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == 15
    for row in rows:
        files = re.findall(r"\]\(\.\./((?:tests|benchmarks)/[^)]+)\)", row)
        assert files, row
        text = "\n".join((ROOT / file).read_text() for file in files)
        for name in re.findall(r"`(test_\w+)`", row):
            assert f"def {name}(" in text, name
