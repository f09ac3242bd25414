"""`kinoswarm download`: the newest release into a folder. Owns the command only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def download(
    invite: Annotated[str, typer.Argument(help="An invite, or a coordinator's address.")],
    out: Annotated[Path, typer.Option(help="Folder to put the release into.")],
    peer: Annotated[
        list[str] | None,
        typer.Option(help="Address (/ip4/…/p2p/…) of any node, for when the coordinator is gone."),
    ] = None,
    light: Annotated[
        bool,
        typer.Option(
            "--light",
            help="Fetch from peers alone, in pure Python: no hivemind, no torch, no web address.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Download a swarm's newest release. Every byte is verified; a broken download goes on where it stopped."""
    from kinoswarm_cli.run_download import WayThere, run_download

    run_download(invite, out, WayThere(peer or [], light), as_json)
