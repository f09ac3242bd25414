"""`kinoswarm status`: a swarm seen from outside, and the node of this machine. Owns the command only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def status(
    invite: Annotated[
        str | None,
        typer.Argument(help="An invite or a coordinator's address. Left out: your own node."),
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of your node.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    alive: Annotated[
        bool, typer.Option("--alive", help="Say nothing; exit with 3 unless your node is alive.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until Ctrl-C.")] = False,
) -> None:
    """Show who is in a swarm, what each cluster has and what was released; or what your own node does and why."""
    from kinoswarm_cli.show_status import require_alive, show_node, show_swarm, watch_node

    if alive:
        require_alive(home)
    elif watch:
        if invite is not None or as_json:
            raise typer.BadParameter(
                "--watch shows your own node on a terminal; leave INVITE and --json out"
            )
        watch_node(home)
    elif invite is None:
        show_node(home, as_json)
    else:
        show_swarm(invite, as_json)
