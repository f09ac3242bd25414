"""`kinoswarm mirror`: flags only; the loop is run_mirror's."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def mirror(
    address: Annotated[str, typer.Argument(help="Address of a coordinator, a copy or a mirror.")],
    out: Annotated[Path, typer.Option(help="Folder that keeps the copy.")],
    swarm: Annotated[
        str, typer.Option(help="The swarm's id or invite, when you have it from elsewhere.")
    ] = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 picks a free one.")] = 8_800,
    every: Annotated[
        float, typer.Option(min=10.0, help="Seconds between looks for a newer copy.")
    ] = 600.0,
    once: Annotated[
        bool, typer.Option("--once", help="Keep the copy and end; serve nothing.")
    ] = False,
) -> None:
    """Keep a checked copy of a swarm's pages and newest release, and serve it: it outlives its coordinator."""
    from kinoswarm_cli.run_mirror import MirrorConfig, run_mirror
    from kinoswarm_node.invites import swarm_of

    config = MirrorConfig(
        address=address,
        folder=out.expanduser().absolute(),
        swarm=swarm_of(swarm) if swarm else None,
        host=host,
        port=port,
        every_s=every,
        once=once,
    )
    run_mirror(config)
