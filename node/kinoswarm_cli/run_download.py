"""Runs a download with a progress bar and tells the next command. Owns words only; the work is release_download's."""

import asyncio
import json
import shutil
import time
from pathlib import Path

import typer

from kinoswarm_cli.progress_bars import Report, reporting
from kinoswarm_node.invites import get_invite
from kinoswarm_node.release_download import Downloaded, ReleaseSource, download_release
from kinoswarm_node.swarm_visit import visiting
from kinoswarm_protocol.invite import Invite
from kinoswarm_protocol.records import Authority


def run_download(typed: str, out: Path, as_json: bool) -> None:
    """Download into `out` and say what lies there. Raises KinoswarmError."""
    folder = out.expanduser().absolute()
    invite = get_invite(typed).body
    started = time.monotonic()
    with reporting(quiet=as_json, in_bytes=True) as report:
        got = asyncio.run(_download(invite, folder, report))
    _tell(got, time.monotonic() - started, as_json)


async def _download(invite: Invite, folder: Path, report: Report) -> Downloaded:
    scratch = folder.with_name(f".{folder.name}.download")
    authority = Authority(invite.swarm, invite.founder, frozenset(invite.coordinators))
    async with visiting(invite, scratch) as visit:
        source = ReleaseSource(visit.client, authority, visit.fetch, _now_ms)
        got = await download_release(
            source, folder, lambda done, total: report(done, total, "downloading")
        )
    shutil.rmtree(scratch, ignore_errors=True)  # kept when it failed: the next try goes on from it
    return got


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
