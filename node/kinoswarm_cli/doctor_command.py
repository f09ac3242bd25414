"""`kinoswarm doctor`. Owns the command only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def doctor(
    invite: Annotated[
        str | None,
        typer.Argument(
            help="An invite: its text, a file or an address. Left out: the last one you joined."
        ),
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of your node.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Check disk, graphics card, ports, names, each address of the swarm and the clock; say what to do."""
    from kinoswarm_cli.doctor_view import examine, exit_code_for, show
    from kinoswarm_node.settings import load_settings

    findings = examine(load_settings(home=home), invite)
    show(findings, as_json)
    raise typer.Exit(exit_code_for(findings))
