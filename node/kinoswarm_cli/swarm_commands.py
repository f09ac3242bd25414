"""`kinoswarm swarm …`: found a swarm and run its coordinator. Owns the flags; the work is kinoswarm_coordinator's."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinoswarm_cli.admin_commands import add_admin_commands
from kinoswarm_cli.amend_command import add_amend_command
from kinoswarm_cli.backup_commands import add_backup_commands

if TYPE_CHECKING:
    from kinoswarm_coordinator.founding import Founded

app = typer.Typer(help="Found a swarm and run its coordinator.", no_args_is_help=True)
add_admin_commands(app)
add_backup_commands(app)
add_amend_command(app)


@app.command()
def create(
    data: Annotated[Path, typer.Argument(help="Folder made by `kinoswarm data prepare`.")],
    name: Annotated[str, typer.Option(help="What volunteers will see.")],
    out: Annotated[Path, typer.Option(help="Folder for keys, charter, invite and coordinator.")],
    preset: Annotated[
        str, typer.Option(help="Size of the model; `kinoswarm presets` lists them.")
    ] = "demo",
    host: Annotated[
        list[str] | None, typer.Option(help="Address or name that nodes can reach; repeatable.")
    ] = None,
    https: Annotated[
        bool, typer.Option("--https", help="Serve over TLS; the invite pins its own certificate.")
    ] = False,
    target_version: Annotated[
        int, typer.Option(min=0, help="Versions to train per expert; 0 is the preset's.")
    ] = 0,
    seed_steps: Annotated[
        int, typer.Option(min=0, help="Steps of the common seed; 0 is the preset's.")
    ] = 0,
    segment_steps: Annotated[
        int, typer.Option(min=0, help="Steps of every segment; 0 follows the node's speed.")
    ] = 0,
    note: Annotated[str, typer.Option(help="What is in the data, in a sentence.")] = "",
    data_licence: Annotated[str, typer.Option(help="SPDX name of the data's licence.")] = "CC0-1.0",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the common seed training.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 is all cores.")] = 0,
    device: Annotated[str, typer.Option(help="Where the common seed is trained.")] = "cpu",
    start_from: Annotated[
        Path | None, typer.Option(help="Folder of a pretrained Wan transformer to start from.")
    ] = None,
    base_licence: Annotated[str, typer.Option(help="SPDX name of its licence.")] = "",
    epsilon: Annotated[
        list[int] | None,
        typer.Option(help="Cluster whose expert is trained on the noise; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train the common seed, sign the charter, write the invite."""
    from kinoswarm_cli.progress_bars import reporting
    from kinoswarm_coordinator.founding import FoundingConfig, create_swarm

    config = FoundingConfig(
        name=name,
        preset=preset,
        hosts=tuple(host or ()),
        https=https,
        target_version=target_version,
        seed_steps=seed_steps,
        segment_steps=segment_steps,
        content_note=note,
        data_licence=data_licence,
        seed=seed,
        threads=threads,
        device=device,
        start_from=start_from,
        base_licence=base_licence,
        epsilon=tuple(epsilon or ()),
    )
    with reporting(quiet=as_json) as report:
        founded = create_swarm(data, out, config, report)
    typer.echo(_as_json(founded, out) if as_json else _in_words(founded, out))


def _as_json(founded: "Founded", out: Path) -> str:
    facts = {
        "swarm": founded.swarm,
        "invite": founded.invite,
        "folder": str(out),
        "notes": founded.notes,
    }
    return json.dumps(facts)


def _in_words(founded: "Founded", out: Path) -> str:
    return "".join(f"Note: {note}\n" for note in founded.notes) + (
        f"Swarm {founded.swarm[:12]}… founded in {out}\n"
        f"Take {out / 'founder.key'} off-line: it signs the charter and amendments only.\n"
        f"Invite ({out / 'invite.txt'}):\n{founded.invite}\n"
        f"Next: kinoswarm swarm serve {out}"
    )


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="Folder made by `kinoswarm swarm create`.")],
    http_host: Annotated[str | None, typer.Option(help="Address that the page listens on.")] = None,
    http_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port of the page and API.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of the operator's worker.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Device of that worker, e.g. cuda.")] = None,
    try_per_hour: Annotated[
        int | None,
        typer.Option(min=0, help="Clips of their own prompts that visitors may have in an hour."),
    ] = None,
    blobs: Annotated[
        str | None,
        typer.Option(
            help="S3-compatible storage of all blobs, s3://BUCKET/PREFIX; keys from AWS_…"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is up as JSON.")] = False,
) -> None:
    """Run the coordinator: leases, verdicts, versions, releases, page; and its worker."""
    import asyncio

    from kinoswarm_cli.signals import run_until_signalled
    from kinoswarm_coordinator.home import SwarmFolder
    from kinoswarm_coordinator.serve import Serving, run_coordinator
    from kinoswarm_coordinator.settings import load_settings
    from kinoswarm_network.logs import log_to

    swarm = SwarmFolder(folder)
    swarm.require_founded()
    settings = load_settings(
        swarm.home,
        http_host=http_host,
        http_port=http_port,
        threads=threads,
        device=device,
        try_per_hour=try_per_hour,
        blobs=blobs,
    )
    log_to(swarm.home / "coordinator.log")

    def on_ready(up: Serving) -> None:
        facts = {"page": up.page, "peer": up.peer, "addresses": up.addresses, "swarm": up.swarm}
        text = (
            f"Coordinator of {up.swarm_name} is up.\nPage:   {up.page}\n"
            f"Join:   kinoswarm join {up.invite}\nCtrl-C ends it; the same command goes on."
        )
        typer.echo(json.dumps(facts) if as_json else text)

    def on_standby(reason: str) -> None:
        text = f"Standing by: {reason}. It takes over within a minute when the leader is gone."
        typer.echo(json.dumps({"standing_by": reason}) if as_json else text)

    asyncio.run(run_until_signalled(run_coordinator(folder, settings, on_ready, on_standby)))
