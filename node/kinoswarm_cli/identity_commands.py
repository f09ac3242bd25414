"""`kinoswarm identity`: back up the node's key and move it to another machine. Owns the commands only."""

from pathlib import Path
from typing import Annotated

import typer

from kinoswarm_cli.questions import asked_passphrase

app = typer.Typer(help="Your node's key: show, back up, restore.", no_args_is_help=True)

HomeOption = Annotated[Path | None, typer.Option(help="Folder of your node.")]
PassphraseOption = Annotated[
    str | None,
    typer.Option(
        envvar="KINOSWARM_PASSPHRASE", show_envvar=True, help="Left out, you are asked for it."
    ),
]


@app.command()
def show(home: HomeOption = None) -> None:
    """Print your node's id, which is its public key."""
    from kinoswarm_network.identity import load_key
    from kinoswarm_node.home import Home
    from kinoswarm_node.settings import load_settings

    typer.echo(load_key(Home(load_settings(home=home).home).identity_path).peer_id)


@app.command("export")
def export_key(
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    home: HomeOption = None,
    passphrase: PassphraseOption = None,
) -> None:
    """Write your node's key to a file that only your passphrase opens."""
    from kinoswarm_network.durable import create_atomic
    from kinoswarm_network.identity import load_key
    from kinoswarm_node.home import Home
    from kinoswarm_node.identity_backup import seal_key
    from kinoswarm_node.settings import load_settings
    from kinoswarm_protocol.errors import LocalError

    key = load_key(Home(load_settings(home=home).home).identity_path)
    words = passphrase or asked_passphrase(twice=True)
    if not create_atomic(out, seal_key(key, words).encode()):
        raise LocalError(f"{out} exists already; name another file")
    typer.echo(f"{out} holds the key of {key.peer_id}. Without the passphrase nobody can use it.")


@app.command("import")
def import_key(
    source: Annotated[Path, typer.Argument(help="A file that `identity export` wrote.")],
    home: HomeOption = None,
    passphrase: PassphraseOption = None,
) -> None:
    """Take your key out of its file. Never replaces another key: move that one away first."""
    from kinoswarm_node.home import Home
    from kinoswarm_node.identity_backup import adopt_key, open_key, read_backup
    from kinoswarm_node.settings import load_settings

    folder = Home(load_settings(home=home).home)
    text = read_backup(source)
    key = open_key(text, passphrase or asked_passphrase())
    adopt_key(folder, key)
    typer.echo(
        f"The node in {folder.root} is {key.peer_id} now. Run one machine at a time with one key."
    )
