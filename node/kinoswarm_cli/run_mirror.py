"""Keeps a copy of a swarm's pages current and serves it. Owns the loop and its words; every file was checked before.

When the address no longer answers, the last copy goes on being served: that is what a mirror is for.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import typer

from kinoswarm_cli.copy_words import age_in_words
from kinoswarm_cli.signals import run_until_signalled
from kinoswarm_network.listening import bound_socket, server_of
from kinoswarm_node.site_copy import CheckedCopy, SiteCopy, keep_copy, recover
from kinoswarm_protocol.errors import BadSignature, KinoswarmError, RemoteError
from kinoswarm_protocol.ids import SwarmId
from kinoswarm_protocol.snapshot import SNAPSHOT_NAME


@dataclass(frozen=True, kw_only=True)
class MirrorConfig:
    """What the volunteer wants mirrored, and where."""

    address: str
    folder: Path
    swarm: SwarmId | None
    host: str
    port: int
    every_s: float
    once: bool


def run_mirror(config: MirrorConfig) -> None:
    """Mirror until signalled, or once. Raises KinoswarmError when there is nothing to serve."""
    recover(config.folder)
    config.folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        newest = _renew(config, None)
    except RemoteError as error:
        if config.once or not (config.folder / SNAPSHOT_NAME).is_file():
            raise
        typer.echo(f"Not renewed: {error}. Serving the last copy.")
        newest = None
    if not config.once:
        asyncio.run(run_until_signalled(_serve(config, newest)))


def _renew(config: MirrorConfig, last: CheckedCopy | None) -> CheckedCopy:
    """Fetch and check a newer copy; an older one than the last is refused."""
    with SiteCopy(config.address) as site:
        copy = site.open(config.swarm)
        if last is not None and copy.swarm != last.swarm:
            raise BadSignature(f"{config.address} now shows another swarm, {copy.swarm[:12]}…")
        if last is not None and copy.snapshot.made_at_ms <= last.snapshot.made_at_ms:
            return last
        fetched = keep_copy(site, copy, config.folder, lambda done, total: None)
    typer.echo(
        f"{copy.name}: {len(copy.snapshot.files)} files, all as signed by {copy.signer}, "
        f"{age_in_words(copy.snapshot.made_at_ms)} ({fetched / 1e6:.1f} MB were new)"
    )
    return copy


async def _serve(config: MirrorConfig, newest: CheckedCopy | None) -> None:
    import uvicorn

    from kinoswarm_coordinator.web.mirror_app import mirror_app

    bound = bound_socket(config.host, config.port, "choose another --port")
    shown = f"http://{config.host}:{bound.getsockname()[1]}/"
    typer.echo(f"Serving it at {shown}; Ctrl-C ends it.")
    settings = uvicorn.Config(
        mirror_app(config.folder), log_level="warning", access_log=False, lifespan="off"
    )
    server = server_of(settings)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets=[bound]))
        tasks.create_task(_keep_renewing(config, newest))


async def _keep_renewing(config: MirrorConfig, newest: CheckedCopy | None) -> None:
    while True:
        await asyncio.sleep(config.every_s)
        try:
            newest = await asyncio.to_thread(_renew, config, newest)
        except KinoswarmError as error:
            typer.echo(f"Not renewed: {error}")
