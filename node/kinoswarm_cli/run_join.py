"""Runs one node for `kinoswarm join`: lock, invite, consent, daemon, exit code. Owns their order."""

import asyncio
import time
from dataclasses import dataclass

import structlog
import typer

from kinoswarm_cli.consent import obtain_consent, obtain_go
from kinoswarm_cli.errors_and_exits import ExitCode
from kinoswarm_cli.join_view import join_view
from kinoswarm_network.durable import write_atomic
from kinoswarm_network.identity import load_or_create_key
from kinoswarm_network.logs import log_to
from kinoswarm_node import services
from kinoswarm_node.context import program_version
from kinoswarm_node.daemon import Daemon
from kinoswarm_node.desktop_notices import DesktopNotices
from kinoswarm_node.home import Home, check_format, locked
from kinoswarm_node.invites import get_invite, invite_text
from kinoswarm_node.settings import NodeSettings
from kinoswarm_node.status_board import Listener, logged
from kinoswarm_node.swarm_folder import open_swarm_folder
from kinoswarm_node.wiring import NodePlan, build_node
from kinoswarm_node.wishes import WishFiles
from kinoswarm_protocol.errors import LocalError


@dataclass(frozen=True)
class JoinRequest:
    """What the person asked for."""

    invite: str | None
    settings: NodeSettings
    yes: bool
    go: bool
    once: bool
    as_json: bool


def run_join(request: JoinRequest) -> int:
    """Take part until stopped; returns the exit code. Raises KinoswarmError for what bars the node."""
    home = Home(request.settings.home.expanduser().absolute())
    with locked(home):
        check_format(home, program_version())
        plan = _plan(request, home)
        log_to(home.log_path)
        with join_view(request.as_json) as listener:
            told = logged(listener, structlog.get_logger("node"))
            level = request.settings.desktop_notices
            notices = DesktopNotices(home.root, level, _now_ms, told)
            return _live(plan, request, notices.hear)


def install_joined(request: JoinRequest) -> list[str]:
    """Ask for consent and go here, where a person is; then let the system run the node. Says what was done.

    Flags hold for this start alone, so what should last belongs into the home's settings.toml.
    """
    service = services.of_this_system()
    home = Home(request.settings.home.expanduser().absolute())
    with locked(home):
        check_format(home, program_version())
        _plan(request, home)
    return service.install(home.root)


def _plan(request: JoinRequest, home: Home) -> NodePlan:
    typed = request.invite if request.invite is not None else _last_invite(home)
    opened = get_invite(typed)
    folder = open_swarm_folder(home.swarm_root(opened.body.swarm), opened.body.swarm)
    obtain_consent(opened.body, folder, request.yes, _now_ms())
    obtain_go(WishFiles(home.root), request.go, joined_before=home.invite_path.exists())
    write_atomic(home.invite_path, invite_text(opened).encode())
    return NodePlan(
        home=home,
        settings=request.settings,
        key=load_or_create_key(home.identity_path),
        invite=opened.body,
        folder=folder,
    )


def _last_invite(home: Home) -> str:
    if not home.invite_path.exists():
        raise LocalError(
            f"no node has joined from {home.root} yet; say which swarm: kinoswarm join INVITE"
        )
    return home.invite_path.read_text(encoding="utf-8", errors="replace")


def _live(plan: NodePlan, request: JoinRequest, listener: Listener) -> int:
    daemon = Daemon(build_node(plan, listener, _now_ms), once=request.once)
    state = asyncio.run(daemon.run())
    if daemon.error is not None:
        raise daemon.error
    if not request.as_json:
        typer.echo(
            f"Accepted {state.accepted}, not accepted {state.rejected} in this run.", err=True
        )
    if state.fault:
        typer.echo(f"kinoswarm: {state.fault}", err=True)
        return ExitCode.WORK_FAILED if state.failures else ExitCode.REFUSED
    return ExitCode.INTERRUPTED if daemon.interrupted else ExitCode.OK


def _now_ms() -> int:
    return int(time.time() * 1000)
