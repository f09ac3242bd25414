"""`kinoswarm resume`. Owns the command only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def resume(
    home: Annotated[Path | None, typer.Option(help="Folder of your node.")] = None,
) -> None:
    """Let your paused node go on where it stopped."""
    from kinoswarm_node import pausing
    from kinoswarm_node.home import Home
    from kinoswarm_node.settings import load_settings

    was_paused = pausing.resume(Home(load_settings(home=home).home))
    typer.echo("It goes on." if was_paused else "It was not paused.")
