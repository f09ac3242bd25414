"""`kinoswarm service`: the node as a service of this user. Owns the commands only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The node as a service of your user: systemd, or launchd on a Mac.", no_args_is_help=True
)


@app.command()
def install(
    home: Annotated[Path | None, typer.Option(help="Folder of your node.")] = None,
) -> None:
    """Run your node from now on and after every login. It must have joined a swarm before."""
    from kinoswarm_node.home import Home
    from kinoswarm_node.services import of_this_system
    from kinoswarm_node.settings import load_settings
    from kinoswarm_protocol.errors import LocalError

    folder = Home(load_settings(home=home).home.expanduser().absolute())
    if not folder.invite_path.exists():
        raise LocalError(
            f"no node has joined from {folder.root} yet; use `kinoswarm join INVITE --service`"
        )
    for sentence in of_this_system().install(folder.root):
        typer.echo(sentence)


@app.command()
def uninstall() -> None:
    """Stop the service and remove its unit. Your key, settings and results stay."""
    from kinoswarm_node.services import of_this_system

    for sentence in of_this_system().uninstall():
        typer.echo(sentence)


@app.command()
def show(home: Annotated[Path | None, typer.Option(help="Folder of your node.")] = None) -> None:
    """Print what would be installed, for a look before you do or for another init system."""
    from kinoswarm_node.services import of_this_system
    from kinoswarm_node.settings import load_settings

    typer.echo(
        of_this_system().text(load_settings(home=home).home.expanduser().absolute()), nl=False
    )
