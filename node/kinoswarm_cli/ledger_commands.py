"""`kinoswarm ledger …`: the ledger of credit, computed again from the event log. Owns flags and words."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check the ledger of credit.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Check the ledger of credit."""


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder made by `kinoswarm swarm create`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the sums as JSON.")] = False,
) -> None:
    """Check the log's hash chain event by event and compute every node's credit from it anew."""
    from kinoswarm_coordinator.offline import checked_ledger

    ledger = checked_ledger(folder)
    sums = dict(sorted(ledger.by_peer.items(), key=lambda item: (-item[1], item[0])))
    if as_json:
        typer.echo(json.dumps({"entries": len(ledger.entries), "flops_by_peer": sums}))
        return
    typer.echo(f"The log is whole. {len(ledger.entries)} lines of credit:")
    for peer, flops in sums.items():
        typer.echo(f"  {peer}  {flops / 1e12:12.3f} TFLOP")
