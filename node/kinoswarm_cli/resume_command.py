"""`kinoswarm resume`. Owns the command only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def resume(
    home: Annotated[Path | None, typer.Option(help="Folder of your node.")] = None,
) -> None:
    """Let your paused node go on where it stopped; the first time, this is your "go"."""
    from kinoswarm_node.settings import load_settings
    from kinoswarm_node.wishes import WishFiles

    was_paused = WishFiles(load_settings(home=home).home).resume()
    typer.echo("It goes on." if was_paused else "It was not paused.")
