"""`kinoswarm account`: several machines under one name. Owns the commands only; the papers are kinoswarm_protocol's."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinoswarm_cli.identity_commands import HomeOption, PassphraseOption
from kinoswarm_cli.questions import asked_passphrase
from kinoswarm_protocol.ids import PeerId

if TYPE_CHECKING:
    from kinoswarm_node.home import Home
    from kinoswarm_protocol.accounts import Delegation
    from kinoswarm_protocol.keys import KeyPair

app = typer.Typer(
    help="Put several machines under one name: their credit counts together.", no_args_is_help=True
)

_DAY_MS = 86_400_000
Name = Annotated[str, typer.Option(help="What pages call you; up to 64 characters.")]
Days = Annotated[int, typer.Option(min=1, max=731, help="How long the machine counts for you.")]
Machine = Annotated[str, typer.Argument(help="Its id, as `kinoswarm identity show` prints there.")]


@app.command()
def create(name: Name, home: HomeOption = None, days: Days = 365) -> None:
    """Make an account key on this machine, and let this machine count for it."""
    from kinoswarm_network.identity import load_or_create_key
    from kinoswarm_node.account_files import create_account, keep_delegation
    from kinoswarm_protocol.accounts import delegate

    folder = _home(home)
    account = create_account(folder)
    machine = load_or_create_key(folder.identity_path).peer_id
    raw = delegate(account, machine, name, _now_ms(), days * _DAY_MS)
    keep_delegation(folder, machine, raw)
    typer.echo(
        f"Account {account.peer_id}, its key is {folder.account_key_path}.\n"
        f"This machine counts for it for {days} days. Back the key up: kinoswarm account export FILE"
    )


@app.command()
def delegate(machine: Machine, name: Name, home: HomeOption = None, days: Days = 365) -> None:
    """Print the line with which another machine of yours counts for your account."""
    from kinoswarm_node.account_files import account_key, delegation_text
    from kinoswarm_protocol import accounts

    key = account_key(_home(home))
    raw = accounts.delegate(key, _peer(machine), name, _now_ms(), days * _DAY_MS)
    typer.echo(f"On that machine: kinoswarm account use {delegation_text(raw)}")


@app.command()
def use(
    delegation: Annotated[str, typer.Argument(help="The line, or a file that holds it.")],
    home: HomeOption = None,
) -> None:
    """Let this machine count for an account; a running node tells its swarm within a minute or so."""
    from kinoswarm_network.identity import load_or_create_key
    from kinoswarm_node.account_files import delegation_from, keep_delegation

    folder = _home(home)
    machine = load_or_create_key(folder.identity_path).peer_id
    body = keep_delegation(folder, machine, delegation_from(delegation))
    typer.echo(f"This machine counts for {body.name!r} ({body.account}) until {_day(body)}.")


@app.command()
def revoke(machine: Machine, home: HomeOption = None) -> None:
    """End what a machine counts for your account, in the swarm that this node joined last."""
    from kinoswarm_node.account_files import account_key

    folder = _home(home)
    key = account_key(folder)
    typer.echo(_revoked(folder, key, key.peer_id, machine))


@app.command()
def leave(home: HomeOption = None) -> None:
    """Let this machine count for itself again; its account's key is not needed."""
    from kinoswarm_network.identity import load_key
    from kinoswarm_node.account_files import own_delegation
    from kinoswarm_protocol.errors import LocalError

    folder = _home(home)
    key = load_key(folder.identity_path)
    found = own_delegation(folder, key.peer_id)
    if found is None:
        raise LocalError("this machine counts for itself already")
    said = _revoked(folder, key, found[1].account, key.peer_id)
    folder.delegation_path.unlink(missing_ok=True)
    typer.echo(said)


@app.command()
def show(home: HomeOption = None) -> None:
    """Print whose account key lies here, and whom this machine counts for."""
    from kinoswarm_network.identity import load_key
    from kinoswarm_node.account_files import own_delegation

    folder = _home(home)
    if folder.account_key_path.exists():
        typer.echo(f"The account key here is {load_key(folder.account_key_path).peer_id}.")
    found = folder.identity_path.exists() and own_delegation(
        folder, load_key(folder.identity_path).peer_id
    )
    if found:
        body = found[1]
        typer.echo(f"This machine counts for {body.name!r} ({body.account}) until {_day(body)}.")
    else:
        typer.echo("This machine counts for itself.")


@app.command("export")
def export_key(
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    home: HomeOption = None,
    passphrase: PassphraseOption = None,
) -> None:
    """Write your account's key to a file that only your passphrase opens."""
    from kinoswarm_network.durable import create_atomic
    from kinoswarm_node.account_files import account_key
    from kinoswarm_node.identity_backup import ACCOUNT, seal_key
    from kinoswarm_protocol.errors import LocalError

    key = account_key(_home(home))
    words = passphrase or asked_passphrase(twice=True)
    if not create_atomic(out, seal_key(key, words, ACCOUNT).encode()):
        raise LocalError(f"{out} exists already; name another file")
    typer.echo(f"{out} holds account {key.peer_id}. Without the passphrase nobody can use it.")


@app.command("import")
def import_key(
    source: Annotated[Path, typer.Argument(help="A file that `account export` wrote.")],
    home: HomeOption = None,
    passphrase: PassphraseOption = None,
) -> None:
    """Take your account's key out of its file, to delegate from this machine too."""
    from kinoswarm_node.identity_backup import ACCOUNT, keep_key, open_key, read_backup

    folder = _home(home)
    text = read_backup(source)
    key = open_key(text, passphrase or asked_passphrase(), ACCOUNT)
    folder.create()
    keep_key(folder.account_key_path, key)
    typer.echo(f"The account key here is {key.peer_id}.")


def _revoked(folder: "Home", key: "KeyPair", account: str, machine: str) -> str:
    """Bring a revocation to the coordinator of the swarm joined last; its sentence."""
    from kinoswarm_node.invites import get_invite
    from kinoswarm_node.swarm_visit import visiting
    from kinoswarm_protocol import accounts
    from kinoswarm_protocol.errors import LocalError
    from kinoswarm_protocol.messages import Noted, RevokeMachine

    if not folder.invite_path.exists():
        raise LocalError(f"no node has joined a swarm from {folder.root} yet: nothing to revoke")
    invite = get_invite(str(folder.invite_path)).body
    raw = accounts.revoke(key, _peer(account), _peer(machine), _now_ms())

    async def bring() -> str:
        async with visiting(invite) as visit:
            return (await visit.client.ask(RevokeMachine(revocation=raw), Noted)).sentence

    sentence = asyncio.run(bring())
    return f"{sentence[:1].upper()}{sentence[1:]}."


def _home(home: Path | None) -> "Home":
    from kinoswarm_node.home import Home
    from kinoswarm_node.settings import load_settings

    return Home(load_settings(home=home).home)


def _peer(typed: str) -> PeerId:
    """Raises MalformedBytes for anything that is no id."""
    from kinoswarm_protocol.keys import public_key_of

    public_key_of(typed)
    return PeerId(typed)


def _day(body: "Delegation") -> str:
    return time.strftime("%Y-%m-%d", time.localtime(body.expires_at_ms / 1000))


def _now_ms() -> int:
    return int(time.time() * 1000)
