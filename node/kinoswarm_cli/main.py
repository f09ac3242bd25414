"""The one program `kinoswarm`: its commands' names, and the way from an error to an exit code.

Heavy libraries are imported inside commands, so that every --help answers at once.
"""

import importlib.metadata
import os
import sys
from typing import Annotated

import typer

from kinoswarm_cli.errors_and_exits import DEBUG_VARIABLE, say_and_code
from kinoswarm_cli.lazy_group import LazyCommand, lazy_group
from kinoswarm_model.left_out import hide

COMMANDS = {
    "join": LazyCommand("kinoswarm_cli.join_command", "Join a swarm and train with it."),
    "status": LazyCommand(
        "kinoswarm_cli.status_command", "Show a swarm, or what your own node is doing."
    ),
    "why": LazyCommand(
        "kinoswarm_cli.why_command",
        "What your node does, why not more, and what became of its work.",
    ),
    "page": LazyCommand("kinoswarm_cli.page_command", "Where your node's own page is."),
    "pause": LazyCommand(
        "kinoswarm_cli.pause_command", "Pause your node; its memory is given back at once."
    ),
    "resume": LazyCommand("kinoswarm_cli.resume_command", "Let your paused node go on."),
    "identity": LazyCommand(
        "kinoswarm_cli.identity_commands", "Back up your node's key, or move it to another machine."
    ),
    "account": LazyCommand(
        "kinoswarm_cli.account_commands", "Put several machines under one name."
    ),
    "service": LazyCommand(
        "kinoswarm_cli.service_commands", "Run your node as a service of your user."
    ),
    "doctor": LazyCommand(
        "kinoswarm_cli.doctor_command", "Find out why joining fails, and what to do about it."
    ),
    "leave": LazyCommand(
        "kinoswarm_cli.leave_command", "End your node, now or once its segment is done."
    ),
    "report": LazyCommand(
        "kinoswarm_cli.report_command", "Pack logs for a bug report, secrets and addresses removed."
    ),
    "download": LazyCommand("kinoswarm_cli.download_command", "Download a swarm's newest release."),
    "generate": LazyCommand(
        "kinoswarm_cli.generate_command", "Make a clip from a prompt with a downloaded release."
    ),
    "evaluate": LazyCommand(
        "kinoswarm_cli.evaluate_command", "Measure a release on held-out clips."
    ),
    "grow": LazyCommand(
        "kinoswarm_cli.grow_command", "Add experts for more data to a downloaded release."
    ),
    "distill": LazyCommand(
        "kinoswarm_cli.distill_command", "Teach one dense model what a release's experts do."
    ),
    "provenance": LazyCommand(
        "kinoswarm_cli.provenance_command", "Check where a clip from a swarm's page comes from."
    ),
    "snapshot": LazyCommand(
        "kinoswarm_cli.snapshot_commands", "Write or check a signed copy of a swarm's pages."
    ),
    "mirror": LazyCommand(
        "kinoswarm_cli.mirror_command", "Keep and serve a checked copy of a swarm's pages."
    ),
    "ledger": LazyCommand("kinoswarm_cli.ledger_commands", "Check the ledger of credit."),
    "data": LazyCommand("kinoswarm_cli.data_commands", "Make and prepare captioned video data."),
    "simulate": LazyCommand(
        "kinoswarm_cli.simulate_command",
        "A swarm of thousands in virtual time, with real decisions.",
    ),
    "presets": LazyCommand(
        "kinoswarm_cli.presets_command", "Models to found a swarm with, and what they take."
    ),
    "swarm": LazyCommand("kinoswarm_cli.swarm_commands", "Found a swarm and run its coordinator."),
    "demo": LazyCommand(
        "kinoswarm_cli.demo", "The whole life of a swarm on this machine, in minutes."
    ),
}

app = typer.Typer(
    cls=lazy_group(COMMANDS),
    help="Strangers train one open text-to-video model together, each on the machine at home.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kinoswarm {importlib.metadata.version('kinoswarm')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of all errors.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Strangers train one open text-to-video model together, each on the machine at home."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


def main() -> None:
    """Run the program and exit with a documented code (errors_and_exits.py)."""
    hide()
    try:
        app()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 the last line of the program
        sys.exit(say_and_code(error))


if __name__ == "__main__":
    main()
