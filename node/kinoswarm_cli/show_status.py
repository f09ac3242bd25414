"""Gets and prints the two kinds of status. Owns no layout (status_view.py) and no connection (swarm_visit.py)."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.live import Live

from kinoswarm_cli.status_view import node_table, swarm_table
from kinoswarm_node.home import Home, running_pid
from kinoswarm_node.invites import get_invite
from kinoswarm_node.node_status import read_status
from kinoswarm_node.settings import load_settings
from kinoswarm_node.swarm_visit import visiting
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.invite import Invite
from kinoswarm_protocol.messages import AskStatus
from kinoswarm_protocol.swarm_status import SwarmStatus

ALIVE_S = 120.0
"""The governor looks every second and writes the status: silence for so long is a hang."""


def show_node(home: Path | None, as_json: bool) -> None:
    """What the node of this home does, and why. Raises LocalError when none has run there."""
    home_folder = Home(load_settings(home=home).home)
    status = read_status(home_folder.status_path)
    running = running_pid(home_folder) is not None
    if as_json:
        typer.echo(msgspec.json.encode({"running": running, **msgspec.to_builtins(status)}))
    else:
        Console().print(node_table(status, running))


def require_alive(home: Path | None) -> None:
    """Raise LocalError unless the node of this home runs and wrote its status lately; for health checks."""
    home_folder = Home(load_settings(home=home).home)
    age_s = time.time() - read_status(home_folder.status_path).updated_at_ms / 1000
    if running_pid(home_folder) is None:
        raise LocalError(f"no node runs in {home_folder.root}")
    if age_s > ALIVE_S:
        raise LocalError(f"the node in {home_folder.root} has said nothing for {age_s:.0f} s")


def watch_node(
    home: Path | None, console: Console | None = None, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Keep showing what the node of this home does, once a second, until Ctrl-C."""
    home_folder = Home(load_settings(home=home).home)

    def look() -> RenderableType:
        return node_table(
            read_status(home_folder.status_path), running_pid(home_folder) is not None
        )

    with Live(look(), console=console or Console(), auto_refresh=False) as live:
        while True:
            sleep(1.0)
            live.update(look(), refresh=True)


def show_swarm(typed: str, as_json: bool) -> None:
    """The swarm as its coordinator sees it. Raises Unreachable when nobody answers."""
    status = asyncio.run(_ask(get_invite(typed).body))
    if as_json:
        typer.echo(msgspec.json.encode(status_as_objects(status)))
    else:
        Console().print(swarm_table(status))


def status_as_objects(status: SwarmStatus) -> object:
    """The status with names: on the wire it is an array."""
    plain = msgspec.structs.asdict(status)
    plain["nodes"] = [msgspec.structs.asdict(node) for node in status.nodes]
    plain["clusters"] = [msgspec.structs.asdict(cluster) for cluster in status.clusters]
    return plain


async def _ask(invite: Invite) -> SwarmStatus:
    async with visiting(invite) as visit:
        return await visit.client.ask(AskStatus(), SwarmStatus)
