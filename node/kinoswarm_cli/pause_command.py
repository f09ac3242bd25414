"""`kinoswarm pause`. Owns the command only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def pause(
    home: Annotated[Path | None, typer.Option(help="Folder of your node.")] = None,
) -> None:
    """Pause your node: its worker ends at once and gives its memory back. Holds until `kinoswarm resume`."""
    from kinoswarm_node import pausing
    from kinoswarm_node.home import Home
    from kinoswarm_node.settings import load_settings

    pausing.pause(Home(load_settings(home=home).home))
    typer.echo("Paused. `kinoswarm resume` lets it go on.")
