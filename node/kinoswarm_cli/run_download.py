"""Runs a download with a progress bar and tells the next command. Owns words only; the work is release_download's."""

import asyncio
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from kinoswarm_cli.progress_bars import Report, reporting
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_node.copy_release import CopyRelease
from kinoswarm_node.home import Home
from kinoswarm_node.invites import get_invite, is_address
from kinoswarm_node.light_visit import light_visiting
from kinoswarm_node.peer_network import PEERS_FILE, cached_peers
from kinoswarm_node.ports import OnBytes
from kinoswarm_node.release_download import Downloaded, ReleaseSource, download_release
from kinoswarm_node.settings import default_home
from kinoswarm_node.site_copy import SiteCopy
from kinoswarm_node.swarm_visit import visiting
from kinoswarm_protocol.errors import Unreachable
from kinoswarm_protocol.ids import SwarmId
from kinoswarm_protocol.invite import Invite
from kinoswarm_protocol.records import Authority


@dataclass(frozen=True)
class WayThere:
    """How the user wants a swarm to be reached."""

    peers: Sequence[str]
    """Addresses of more peers than the invite names."""
    light: bool
    """Over py-libp2p alone."""


def run_download(typed: str, out: Path, there: WayThere, as_json: bool) -> None:
    """Download into `out` and say what lies there. Raises KinoswarmError."""
    folder = out.expanduser().absolute()
    invite = get_invite(typed).body
    started = time.monotonic()
    address = typed.strip() if is_address(typed) else ""
    with reporting(quiet=as_json, in_bytes=True) as report:
        peers = [*there.peers, *_met_peers(invite.swarm)]
        way = _Way(invite, address, peers)
        download = _download_light if there.light else _download
        got = asyncio.run(download(way, folder, report))
    _tell(got, time.monotonic() - started, as_json)


def _met_peers(swarm: SwarmId) -> list[str]:
    """Peers that a node of this user met before."""
    return cached_peers(Home(default_home()).swarm_root(swarm) / PEERS_FILE)


@dataclass(frozen=True)
class _Way:
    """Where to ask."""

    invite: Invite
    address: str
    """What was typed, when it is a web address: it may be a copy's."""
    peers: list[str]


async def _download_light(way: _Way, folder: Path, report: Report) -> Downloaded:
    """From the swarm's peers by the second implementation of libp2p."""
    scratch = _scratch(folder)
    async with light_visiting(way.invite, scratch, way.peers) as visit:
        source = ReleaseSource(visit.look_up, await visit.authority(), visit.fetch, _now_ms)
        got = await download_release(source, folder, _shown(report))
    shutil.rmtree(scratch, ignore_errors=True)
    return got


async def _download(way: _Way, folder: Path, report: Report) -> Downloaded:
    """From the coordinator; when none answers, from the swarm's peers, or from the copy at the typed address."""
    invite, address = way.invite, way.address
    scratch, on_bytes = _scratch(folder), _shown(report)
    authority = Authority(invite.swarm, invite.founder, frozenset(invite.coordinators))

    try:
        async with visiting(invite, scratch, way.peers) as visit:
            source = ReleaseSource(visit.look_up, await visit.authority(), visit.fetch, _now_ms)
            got = await download_release(source, folder, on_bytes)
    except Unreachable:
        if not address:
            raise
        got = await _download_from_copy(address, authority, folder, scratch, on_bytes)
    shutil.rmtree(scratch, ignore_errors=True)  # kept when it failed: the next try goes on from it
    return got


def _scratch(folder: Path) -> Path:
    """Where blobs wait until they are all there; kept when a download breaks, so that the next one goes on."""
    return folder.with_name(f".{folder.name}.download")


def _shown(report: Report) -> OnBytes:
    return lambda done, total: report(done, total, "downloading")


async def _download_from_copy(
    address: str, authority: Authority, folder: Path, scratch: Path, on_bytes: OnBytes
) -> Downloaded:
    with SiteCopy(address) as site:
        copy = await asyncio.to_thread(site.open, authority.swarm)
        authority = replace(authority, coordinators=copy.coordinators)
        release = CopyRelease(site, copy, BlobStore(scratch))
        source = ReleaseSource(release.look_up, authority, release.fetch, _now_ms)
        return await download_release(source, folder, on_bytes)


def _tell(got: Downloaded, seconds: float, as_json: bool) -> None:
    facts = {
        "folder": str(got.folder),
        "release": got.manifest.version,
        "files": len(got.manifest.files),
        "size_bytes": got.size_bytes,
        "seconds": round(seconds, 2),
        "fresh": got.fresh,
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    what = f"release {got.manifest.version} of {got.manifest.swarm_name}"
    size = f"{len(got.manifest.files)} files, {got.size_bytes / 1e6:.1f} MB, all verified"
    verb = "is in" if got.fresh else "was already in"
    typer.echo(f"{what} ({size}) {verb} {got.folder}")
    typer.echo(f'Next: kinoswarm generate "a prompt" --model {got.folder} --out clip.mp4')


def _now_ms() -> int:
    return int(time.time() * 1000)
