"""`kinoswarm why`. Owns the command and its layout; the words are kinoswarm_node.why's."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def why(
    home: Annotated[Path | None, typer.Option(help="Folder of your node.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """What your node does and since when, why not more, what was accepted or rejected and why, credit, next step."""
    import msgspec
    from rich.console import Console

    from kinoswarm_cli.why_view import screen
    from kinoswarm_node.own_files import explain_home
    from kinoswarm_node.settings import load_settings

    found = explain_home(load_settings(home=home))
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        Console().print(screen(found))
