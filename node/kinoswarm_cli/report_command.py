"""`kinoswarm report`. Owns the command only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def report(
    home: Annotated[Path | None, typer.Option(help="Folder of your node.")] = None,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("kinoswarm-report.zip"),
) -> None:
    """Pack logs, settings and history for a bug report, without keys, invites, addresses and names. Nothing is sent."""
    from kinoswarm_node.bug_report import pack_report
    from kinoswarm_node.settings import load_settings
    from kinoswarm_protocol.errors import LocalError

    settings = load_settings(home=home)
    if not settings.home.is_dir():
        raise LocalError(f"there is no node in {settings.home}; name its folder with --home")
    names = pack_report(settings, out)
    typer.echo(f"{out}: {', '.join(names)}. Look into it before you send it to anybody.")
