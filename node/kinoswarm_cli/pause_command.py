"""`kinoswarm pause`. Owns the command only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def pause(
    home: Annotated[Path | None, typer.Option(help="Folder of your node.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, max=525_600.0, help="End the pause after so long.")
    ] = None,
) -> None:
    """Pause your node: its worker ends at once and gives its memory back. Holds until `kinoswarm resume`."""
    import time

    from kinoswarm_node.settings import load_settings
    from kinoswarm_node.wishes import WishFiles

    until_ms = None if minutes is None else int(time.time() * 1000 + minutes * 60_000)
    WishFiles(load_settings(home=home).home).pause(until_ms)
    how_long = "" if minutes is None else f" for {minutes:g} minutes"
    typer.echo(f"Paused{how_long}. `kinoswarm resume` lets it go on.")
