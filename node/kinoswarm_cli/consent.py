"""Shows what joining means, asks for a yes, and once for a "go". Owns the words, not the answers' files."""

import sys

import typer
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from kinoswarm_cli.errors_and_exits import ExitCode
from kinoswarm_cli.questions import says_yes
from kinoswarm_node.joining import licences_of
from kinoswarm_node.swarm_folder import Consent, SwarmFolder
from kinoswarm_node.wishes import WishFiles
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.invite import Invite

PRIVACY = (
    "Other members of a peer-to-peer network can see this machine's internet address while it takes part. "
    "No page or record of the swarm shows it."
)


def invite_in_words(invite: Invite) -> str:
    """The swarm's name, licences and content note, as a person reads them."""
    lines = [f"Swarm: {invite.name}   ({invite.swarm[:16]}…)"]
    lines += [
        f"Licence of the {what}: {name}" for what, name in licences_of(invite.licences).items()
    ]
    lines += [f"Content: {invite.content_note or 'the founder left no note'}"]
    lines += [f"Founder: {invite.founder}", PRIVACY]
    return "\n".join(lines)


def obtain_consent(invite: Invite, folder: SwarmFolder, yes: bool, now_ms: int) -> None:
    """Show the invite and record the volunteer's yes; asked once per swarm and set of licences.

    Raises LocalError when nobody is there to answer, typer.Exit when the answer is no.
    """
    found = folder.consent()
    if found is not None and found.licences == licences_of(invite.licences):
        return
    # the texts are a stranger's: Text shows them as they are, markup and all
    Console(stderr=True).print(Panel(Text(invite_in_words(invite)), title="You are about to join"))
    if not yes:
        _ask()
    folder.keep_consent(
        Consent(
            at_ms=now_ms,
            swarm=invite.swarm,
            name=invite.name,
            licences=licences_of(invite.licences),
            content_note=invite.content_note,
        )
    )


def obtain_go(wishes: WishFiles, go: bool, joined_before: bool) -> None:
    """Have the volunteer say once that this machine may train; without an answer the node starts paused.

    A node that joined before there was this question has long been told to go.
    """
    if go or (joined_before and not wishes.said_go() and wishes.paused(0) is None):
        wishes.resume()
    if wishes.said_go():
        return
    if sys.stdin.isatty() and says_yes("Train on this machine from now on?"):
        wishes.resume()
        return
    wishes.await_go()


def _ask() -> None:
    if not sys.stdin.isatty():
        raise LocalError(
            "nobody is there to agree to the swarm's licences; run it in a terminal, or pass --yes"
        )
    if not says_yes("Join under these terms?"):
        typer.echo(
            "Not joined: nothing is kept or computed. The same command asks again.", err=True
        )
        raise typer.Exit(ExitCode.INTERRUPTED)
