"""A command group that imports a command's module only when that command runs. Owns the loading, no command."""

import importlib
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup


class LazyCommand(NamedTuple):
    """Where a command lives, and its line in the help."""

    module: str
    """Has a `typer.Typer` called `app`."""
    summary: str


def _listed(name: str, summary: str) -> Any:
    """A command that only has a name and a line of help."""
    app = typer.Typer()
    app.command(name, help=summary)(lambda: None)
    return typer.main.get_command(app)


def _load(name: str, module: str) -> Any:
    command = typer.main.get_command(importlib.import_module(module).app)
    command.name = name
    return command


def lazy_group(commands: dict[str, LazyCommand]) -> type[TyperGroup]:
    """A group class over `commands`, in their order."""

    class LazyGroup(TyperGroup):
        listing = False

        def list_commands(self, ctx: Any) -> list[str]:
            return list(commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            found = commands.get(cmd_name)
            if found is None:
                return None
            if self.listing:
                return _listed(cmd_name, found.summary)
            return _load(cmd_name, found.module)

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            """Names for typer's "did you mean"; the stubs are never run."""
            self.commands = dict.fromkeys(commands)  # type: ignore[assignment]
            return super().resolve_command(ctx, args)

        def format_help(self, ctx: Any, formatter: Any) -> None:
            self.listing = True
            try:
                super().format_help(ctx, formatter)
            finally:
                self.listing = False

    return LazyGroup
