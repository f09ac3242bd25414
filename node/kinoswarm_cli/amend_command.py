"""`kinoswarm swarm amend`. Owns the flags and the words; signing is kinoswarm_coordinator.amending's."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer


def add_amend_command(app: typer.Typer) -> None:
    """Add it to `kinoswarm swarm`."""
    app.command()(amend)


def amend(
    folder: Annotated[Path, typer.Argument(help="Folder made by `kinoswarm swarm create`.")],
    notice: Annotated[str, typer.Option(help="What every volunteer should read.")] = "",
    policy: Annotated[
        list[str] | None, typer.Option(help="A field of the policy as name=value; repeatable.")
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(help="Where coordinators are reachable: replaces all; repeatable."),
    ] = None,
    coordinator: Annotated[
        list[str] | None,
        typer.Option(help="Id of a coordinator's key: replaces all; repeatable."),
    ] = None,
    rotate_key: Annotated[
        bool, typer.Option("--rotate-key", help="End this coordinator's key and draw a new one.")
    ] = False,
    min_version: Annotated[
        str, typer.Option(help="Oldest program version that may take part.")
    ] = "",
    new_version: Annotated[str, typer.Option(help="A program version to recommend.")] = "",
    version_notes: Annotated[str, typer.Option(help="What is new in it.")] = "",
    founder_key: Annotated[
        Path | None, typer.Option(help="The founder's key; else FOLDER/founder.key.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Change what the charter allows to change, signed by the founder; coordinator and nodes follow by themselves."""
    from kinoswarm_coordinator.amending import Changes, amend_swarm

    changes = Changes(
        notice=notice,
        policy=tuple(policy or ()),
        coordinators=tuple(coordinator or ()),
        addresses=tuple(address or ()),
        rotate_key=rotate_key,
        min_version=min_version,
        new_version=new_version,
        version_notes=version_notes,
    )
    signed = amend_swarm(folder, changes, int(time.time() * 1000), founder_key)
    facts = {"number": signed.number, "sentence": signed.sentence, "invite": signed.invite}
    text = (
        f"Signed: {signed.sentence}.\nA coordinator that runs from {folder} follows within seconds, nodes within "
        f"minutes.\nInvite from now on ({folder / 'invite.txt'}):\n{signed.invite}"
    )
    typer.echo(json.dumps(facts) if as_json else text)
