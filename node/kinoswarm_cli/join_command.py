"""`kinoswarm join`: flags into settings, consent, then the node's daemon. Owns the command only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Helper = Annotated[
    bool | None,
    typer.Option(
        "--helper/--trainer",
        help="Train nothing of its own: audit, keep and serve what others need. Needs no graphics card.",
    ),
]


@app.command()
def join(
    invite: Annotated[
        str | None,
        typer.Argument(help="The invite: its text, a file or an address. Left out: as last time."),
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Folder of this node's key, blobs and unsent results.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Agree to the shown licences without being asked.")
    ] = False,
    go: Annotated[
        bool,
        typer.Option("--go", help="Say go: train as your rules allow, without being asked once."),
    ] = False,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; 0 takes half of the cores.")
    ] = None,
    pseudonym: Annotated[str | None, typer.Option(help="Name shown to the swarm.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:0 or mps.")] = None,
    listen: Annotated[
        list[str] | None, typer.Option(help="Multiaddress to listen on; repeatable.")
    ] = None,
    https_only: Annotated[
        bool | None,
        typer.Option(
            "--https-only/--peer-to-peer",
            help="Use the coordinator's web address alone, without any peer-to-peer program.",
        ),
    ] = None,
    helper: Helper = None,
    once: Annotated[bool, typer.Option("--once", help="Leave after one accepted segment.")] = False,
    service: Annotated[
        bool,
        typer.Option(
            "--service", help="Install it as a service of your user (systemd, launchd) and return."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every change as a line of JSON.")
    ] = False,
) -> None:
    """Join a swarm and train with it until you stop with Ctrl-C. Nothing is lost by stopping at any time.

    It starts paused until you say go once. After that your settings decide when it trains: by default not on
    battery, and on a graphics card not while another program uses it and only after three idle minutes.
    """
    from kinoswarm_cli.run_join import JoinRequest, install_joined, run_join
    from kinoswarm_node.settings import load_settings

    settings = load_settings(
        home=home,
        threads=threads,
        pseudonym=pseudonym,
        device=device,
        listen=listen or None,
        https_only=https_only,
        role=None if helper is None else "helper" if helper else "trainer",
    )
    request = JoinRequest(
        invite=invite, settings=settings, yes=yes, go=go, once=once, as_json=as_json
    )
    if service:
        for sentence in install_joined(request):
            typer.echo(sentence)
        raise typer.Exit
    raise typer.Exit(run_join(request))
