"""`kinoswarm swarm backup|restore|promote`: a coordinator that is lost comes back. Owns flags and words."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="Folder made by `kinoswarm swarm create`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def add_backup_commands(app: typer.Typer) -> None:
    """Put the commands into `kinoswarm swarm`."""
    for command in (backup, restore, promote):
        app.command()(command)


def backup(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="New folder, or one with an earlier backup.")],
    as_json: AsJson = False,
) -> None:
    """Copy log, keys, held-out files and blobs, checked, while the coordinator runs. The founder's key stays out."""
    from kinoswarm_coordinator.backup import back_up

    made = back_up(folder, out, int(time.time() * 1000))
    text = (
        f"{made.num_events} events and {made.num_blobs} blobs ({made.new_blobs} new) are in {out}.\n"
        "It holds the coordinator's key: keep it where only you can read it.\n"
        f"When the coordinator is lost: kinoswarm swarm restore {out} NEW_FOLDER"
    )
    typer.echo(json.dumps(vars(made)) if as_json else text)


def restore(
    backup_folder: Annotated[Path, typer.Argument(help="Folder made by `kinoswarm swarm backup`.")],
    folder: Annotated[Path, typer.Argument(help="The new folder of the swarm.")],
    database_url: Annotated[
        str, typer.Option(help="An empty database for the log; else SQLite in the folder.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check a backup and lay it out as a swarm's folder. It is served only after `kinoswarm swarm promote`."""
    from kinoswarm_coordinator.backup import restore as restore_backup

    made = restore_backup(backup_folder, folder, database_url)
    text = (
        f"{made.num_events} events and {made.num_blobs} blobs are back in {folder}.\n"
        "Make sure that the old coordinator is off and stays off. Then:\n"
        f"  kinoswarm swarm promote {folder}\n  kinoswarm swarm serve {folder}"
    )
    typer.echo(json.dumps(vars(made)) if as_json else text)


def promote(folder: Folder, as_json: AsJson = False) -> None:
    """Raise the epoch, so that this folder's coordinator leads and the one before it writes nothing more."""
    from kinoswarm_coordinator.backup import promote as promote_folder

    now = promote_folder(folder)
    text = (
        f"Epoch {now.epoch} begins: whoever led before writes nothing more into this log.\n"
        f"Next: kinoswarm swarm serve {folder}"
    )
    typer.echo(json.dumps({"epoch": now.epoch}) if as_json else text)
