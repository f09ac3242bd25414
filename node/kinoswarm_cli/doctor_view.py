"""What `kinoswarm doctor` looks at, prints and exits with. Owns the words around the findings, not the findings."""

import asyncio
from collections.abc import Sequence

import msgspec
import typer

from kinoswarm_cli.errors_and_exits import ExitCode
from kinoswarm_node.checkup import Finding, State, Where
from kinoswarm_node.checkup_probes import examine_machine, examine_swarm, free_listen
from kinoswarm_node.home import Home
from kinoswarm_node.invites import get_invite
from kinoswarm_node.settings import NodeSettings
from kinoswarm_protocol.errors import KinoswarmError
from kinoswarm_protocol.invite import Invite

_MARKS = {State.FINE: "fine", State.ADVICE: "note", State.WRONG: "WRONG"}


def examine(settings: NodeSettings, typed: str | None) -> list[Finding]:
    """The machine, then the invite, then the swarm that it leads to. An unreadable invite is a finding, too."""
    findings = examine_machine(settings)
    remembered = Home(settings.home).invite_path
    typed = typed or (str(remembered) if remembered.is_file() else None)
    if typed is None:
        return [*findings, _NO_INVITE]
    try:
        opened = get_invite(typed)
    except KinoswarmError as error:
        return [*findings, _bad_invite(error)]
    asking = examine_swarm(opened.body, free_listen(settings), https_only=settings.https_only)
    return [*findings, _about(opened.body), *asyncio.run(asking)]


def show(findings: Sequence[Finding], as_json: bool) -> None:
    """One line each, and one more where something is to be done."""
    if as_json:
        typer.echo(msgspec.json.encode({"findings": list(findings)}).decode())
        return
    for finding in findings:
        typer.echo(f"{_MARKS[finding.state]:<6}{finding.name}: {finding.sentence}")
        if finding.to_do:
            typer.echo(f"      → {finding.to_do}")
    typer.echo(f"\n{_in_short(findings)}")


def _in_short(findings: Sequence[Finding]) -> str:
    """What it comes down to, for those who read one line."""
    wrong = [finding.name for finding in findings if finding.state is State.WRONG]
    if wrong:
        return f"In the way of taking part: {', '.join(wrong)}. What to do stands under each (→)."
    if _NO_INVITE in findings:
        return "This machine is ready. Whether the swarm is there shows with its invite: kinoswarm doctor INVITE"
    return "Nothing is in the way of taking part: kinoswarm join INVITE"


def exit_code_for(findings: Sequence[Finding]) -> ExitCode:
    """What is wrong here comes before what is wrong there: it can be mended here."""
    wrong = {finding.where for finding in findings if finding.state is State.WRONG}
    if Where.HERE in wrong:
        return ExitCode.LOCAL
    return ExitCode.UNREACHABLE if wrong else ExitCode.OK


_NO_INVITE = Finding(
    name="invite",
    state=State.ADVICE,
    sentence="none was given and no swarm was joined yet, so the network was not tried",
    to_do="kinoswarm doctor INVITE",
)


def _about(invite: Invite) -> Finding:
    return Finding(
        name="invite", state=State.FINE, sentence=f"signed by the founder of {invite.name!r}"
    )


def _bad_invite(error: KinoswarmError) -> Finding:
    return Finding(
        name="invite",
        state=State.WRONG,
        sentence=str(error),
        to_do="ask for the invite again, and give its text in quotes, its file or its address",
    )
