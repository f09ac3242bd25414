"""`kinoswarm ledger …`: the ledger of credit, computed again from the event log. Owns flags and words."""

import json
from pathlib import Path
from typing import Annotated

import typer

_TIMEOUT_S = 20.0
_MAX_BYTES = 4096
"""More than a signed head takes."""

app = typer.Typer(help="Check the ledger of credit.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Check the ledger of credit."""


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder made by `kinoswarm swarm create`.")],
    published: Annotated[
        str, typer.Option(help="Address of a coordinator whose published head is checked too.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the sums as JSON.")] = False,
) -> None:
    """Check the log event by event, by hash chain and signed heads, and compute every node's credit from it anew."""
    from kinoswarm_coordinator.offline import checked_ledger

    checked = checked_ledger(folder, _published_head(published) if published else b"")
    ledger = checked.ledger
    sums = dict(sorted(ledger.by_peer.items(), key=lambda item: (-item[1], item[0])))
    if as_json:
        facts = {"events": checked.num_events, "signed_heads": checked.num_heads}
        facts |= {"entries": len(ledger.entries)}
        credit = {"flops_by_peer": sums, "flops_by_account": ledger.by_account}
        credit["verified_by_account"] = ledger.verified
        typer.echo(json.dumps({**facts, **credit}))
        return
    typer.echo(
        f"The log is whole: {checked.num_events} events, as {checked.num_heads} signed heads say. "
        f"{len(ledger.entries)} lines of credit:"
    )
    for peer, flops in sums.items():
        typer.echo(f"  {peer}  {flops / 1e12:12.3f} TFLOP")
    for account, flops in sorted(ledger.verified.items()):
        typer.echo(f"  audits stand for {flops / 1e12:.3f} TFLOP of {account}")
    for account, machines in sorted(ledger.by_account.items()):
        for peer, flops in sorted(machines.items()):
            if peer != account:
                typer.echo(f"  of these {flops / 1e12:.3f} TFLOP of {peer} for account {account}")


def _published_head(address: str) -> bytes:
    """What a coordinator shows of its log now. Raises Unreachable."""
    import httpx

    from kinoswarm_protocol.errors import Unreachable

    url = f"{address.rstrip('/')}/api/v1/log/head"
    try:
        with httpx.stream("GET", url, timeout=_TIMEOUT_S) as answer:
            answer.raise_for_status()
            raw = b""
            for piece in answer.iter_bytes(1024):
                raw += piece
                if len(raw) > _MAX_BYTES:
                    raise Unreachable(
                        f"{url} answers more than {_MAX_BYTES} bytes; expected a signed head"
                    )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreachable(f"{url} gives no signed head ({error})") from error
    return raw
