"""`kinoswarm snapshot …`: a signed copy of a swarm's public state. Owns flags and words; the work is elsewhere."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Write or check a signed copy of a swarm's pages.", no_args_is_help=True)


@app.command()
def write(
    folder: Annotated[Path, typer.Argument(help="Folder made by `kinoswarm swarm create`.")],
    out: Annotated[Path, typer.Option(help="Empty folder, or one with an earlier copy.")],
    model: Annotated[
        bool, typer.Option(help="Put the newest release's files into the copy too.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the whole public state as a static site, signed by the coordinator: any static host can serve it."""
    from kinoswarm_coordinator.offline import write_copy

    made = write_copy(folder, out, with_model=model)
    facts = {"folder": str(out), "files": made.num_files, "size_bytes": made.size_bytes}
    text = (
        f"{made.num_files} files, {made.size_bytes / 1e6:.1f} MB, signed, in {out}\n"
        "Next: put the folder on any web host; `kinoswarm snapshot verify ADDRESS` checks it there."
    )
    typer.echo(json.dumps(facts) if as_json else text)


@app.command()
def verify(
    address: Annotated[str, typer.Argument(help="Address of a copy, a mirror or a coordinator.")],
    swarm: Annotated[
        str, typer.Option(help="The swarm's id or invite, when you have it from elsewhere.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check every file of a copy against the coordinator's signature. Exit code 6 when something is not as signed."""
    from kinoswarm_cli.copy_words import age_in_words
    from kinoswarm_cli.progress_bars import reporting
    from kinoswarm_node.invites import swarm_of
    from kinoswarm_node.site_copy import SiteCopy, check_all
    from kinoswarm_protocol.errors import HashMismatch

    with SiteCopy(address) as site, tempfile.TemporaryDirectory() as scratch:
        copy = site.open(swarm_of(swarm) if swarm else None)
        with reporting(quiet=as_json, in_bytes=True) as report:
            wrong = check_all(
                site, copy, Path(scratch), lambda done, total: report(done, total, "checking")
            )
    facts = {
        "swarm": copy.swarm,
        "name": copy.name,
        "signer": copy.signer,
        "made_at_ms": copy.snapshot.made_at_ms,
        "files": len(copy.snapshot.files),
        "wrong": wrong,
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(f"Swarm {copy.name}, id {copy.swarm}")
        typer.echo(f"Signed by coordinator {copy.signer}, {age_in_words(copy.snapshot.made_at_ms)}")
        if not swarm:
            typer.echo(
                "Compare the id with one you have from elsewhere: a copy names its own swarm."
            )
        if not wrong:
            typer.echo(f"All {len(copy.snapshot.files)} files are as signed.")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise HashMismatch(wrong[0] + more)
