"""`kinoswarm page`. Owns the command only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def page(
    home: Annotated[Path | None, typer.Option(help="Folder of your node.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in your browser.")] = False,
) -> None:
    """Print the address of your running node's own page. The address holds a secret: keep it to yourself."""
    from kinoswarm_node.page_address import read_address
    from kinoswarm_node.settings import load_settings

    address, fingerprint = read_address(load_settings(home=home).home)
    typer.echo(address)
    if fingerprint:
        typer.echo(f"Your browser will ask about its certificate; compare this: {fingerprint}")
    if open_it:
        typer.launch(address)
