"""`kinoswarm leave`. Owns the command only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def leave(
    home: Annotated[Path | None, typer.Option(help="Folder of your node.")] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Finish and send the segment in work first.")
    ] = False,
) -> None:
    """End your running node. Its segment is saved and goes on at the next `kinoswarm join`."""
    import os
    import signal
    import sys

    from kinoswarm_node.home import Home, running_pid
    from kinoswarm_node.settings import load_settings
    from kinoswarm_node.wishes import WishFiles
    from kinoswarm_protocol.errors import LocalError

    root = load_settings(home=home).home
    pid = running_pid(Home(root))
    if pid is None:
        raise LocalError(f"no node runs in {root}; there is nothing to leave")
    if finish:
        WishFiles(root).finish()
        typer.echo("It leaves once its segment is done and sent.")
    else:
        if sys.platform == "win32":
            WishFiles(root).leave()  # os.kill would end it there in the middle of a write
        else:
            os.kill(pid, signal.SIGTERM)
        typer.echo("It leaves now; its segment is saved.")
