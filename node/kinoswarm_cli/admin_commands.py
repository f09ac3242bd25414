"""`kinoswarm swarm pause|resume|ban|unban|rollback|release`: an operator's actions. Owns flags and words.

Each is signed with the coordinator's key, or an admin's (`--key`), and handed to the running coordinator.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Annotated

import typer

from kinoswarm_protocol.admin import (
    AdminAction,
    BanNode,
    MakeRelease,
    PauseSwarm,
    ResumeSwarm,
    RollBack,
    UnbanNode,
)
from kinoswarm_protocol.ids import PeerId

Folder = Annotated[Path, typer.Argument(help="Folder made by `kinoswarm swarm create`.")]
Why = Annotated[str, typer.Option(help="The reason, in a sentence that volunteers will read.")]
Key = Annotated[Path | None, typer.Option(help="An admin's key file; else the coordinator's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


def add_admin_commands(app: typer.Typer) -> None:
    """Put the commands into `kinoswarm swarm`."""
    for command in (pause, resume, ban, unban, rollback, release):
        app.command()(command)


def pause(folder: Folder, why: Why, key: Key = None, as_json: AsJson = False) -> None:
    """Give out no new training; what is under way is still taken, judged and merged."""
    _ask(folder, PauseSwarm(sentence=why), key, as_json)


def resume(folder: Folder, key: Key = None, as_json: AsJson = False) -> None:
    """Let training go on."""
    _ask(folder, ResumeSwarm(), key, as_json)


def ban(
    folder: Folder,
    peer: Annotated[str, typer.Argument(help="The node's id, as its page shows it.")],
    why: Why,
    hours: Annotated[float, typer.Option(min=0.01, max=100_000.0, help="How long.")] = 24.0,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Give a node no leases and take nothing from it, for a time."""
    until_ms = int(time.time() * 1000 + hours * 3_600_000)
    _ask(folder, BanNode(peer=PeerId(peer), until_ms=until_ms, sentence=why), key, as_json)


def unban(
    folder: Folder,
    peer: Annotated[str, typer.Argument(help="The node's id.")],
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """End a ban now."""
    _ask(folder, UnbanNode(peer=PeerId(peer)), key, as_json)


def rollback(
    folder: Folder,
    cluster: Annotated[int, typer.Option(min=0, help="Whose expert.")],
    to: Annotated[int, typer.Option(min=0, help="The version whose content comes back.")],
    why: Why,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Cut a new version of an expert with the content of an older one, and withdraw those between."""
    action = RollBack(cluster=cluster, lineage=0, to_version=to, sentence=why)
    _ask(folder, action, key, as_json)


def release(folder: Folder, key: Key = None, as_json: AsJson = False) -> None:
    """Build a release of the newest versions now."""
    _ask(folder, MakeRelease(), key, as_json)


def _ask(folder: Path, action: AdminAction, key: Path | None, as_json: bool) -> None:
    from kinoswarm_coordinator.admin_door import ask_coordinator
    from kinoswarm_coordinator.home import SwarmFolder
    from kinoswarm_network.identity import load_key
    from kinoswarm_protocol.errors import Code, Refused
    from kinoswarm_protocol.invite import read_invite

    swarm = SwarmFolder(folder.resolve())
    swarm.require_founded()
    signing = load_key(key or swarm.key)
    swarm_id = read_invite(swarm.invite.read_text()).body.swarm
    now_ms = int(time.time() * 1000)
    answer = asyncio.run(ask_coordinator(swarm.admin_socket, signing, swarm_id, action, now_ms))
    if not answer.done:
        raise Refused(Code.NOT_PERMITTED, answer.sentence)
    said = answer.sentence[:1].upper() + answer.sentence[1:] + "."
    typer.echo(json.dumps({"done": True, "sentence": answer.sentence}) if as_json else said)
