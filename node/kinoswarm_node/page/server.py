"""Serves the local page inside the daemon's loop. Owns its socket, token and certificate; answers nothing itself."""

import asyncio
import contextlib
import ipaddress
import secrets
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn

from kinoswarm_network.certificate import Certificate, ensure_certificate
from kinoswarm_network.durable import create_atomic
from kinoswarm_network.listening import bound_socket, server_of
from kinoswarm_node.context import NodeContext
from kinoswarm_node.page.app import create_app
from kinoswarm_node.page.guard import Guard
from kinoswarm_node.page.source import PageSource
from kinoswarm_node.page_address import forget_address, write_address
from kinoswarm_protocol.errors import LocalError

_TOKEN_FILE = "page.token"  # noqa: S105  a file's name
_STOP_TIMEOUT_S = 2.0


@contextlib.asynccontextmanager
async def serving_page(node: NodeContext) -> AsyncIterator[str]:
    """Serve the page; gives its address, empty when it is off. Raises LocalError when it can't listen."""
    settings = node.settings
    if not settings.page_port:
        yield ""
        return
    host = str(settings.page_host)
    secure = not ipaddress.ip_address(host).is_loopback
    listener = _listen(host, settings.page_port)
    shown = f"{_bracketed(host)}:{listener.getsockname()[1]}"
    guard = Guard(_token(settings.home), _names(shown), "https" if secure else "http")
    certificate = _certificate(settings.home, host) if secure else None
    server = _server(node, guard, certificate)
    address = f"{'https' if secure else 'http'}://{shown}/enter?token={_token(settings.home)}"
    write_address(settings.home, address, certificate.fingerprint if certificate else "")
    task = asyncio.create_task(server.serve(sockets=[listener]), name="local page")
    try:
        yield address
    finally:
        server.should_exit = server.force_exit = True
        await asyncio.wait({task}, timeout=_STOP_TIMEOUT_S)
        task.cancel()
        listener.close()
        forget_address(settings.home)


def _certificate(home: Path, host: str) -> Certificate:
    return ensure_certificate(home / f"page-{host.replace(':', '_')}.crt", "Kinoswarm node", [host])


def _server(node: NodeContext, guard: Guard, certificate: Certificate | None) -> uvicorn.Server:
    app = create_app(PageSource(node), guard, secure=certificate is not None)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", server_header=False, ws="none"
    )
    if certificate is not None:
        config.ssl_certfile, config.ssl_keyfile = str(certificate.path), str(certificate.key_path)
    return server_of(config)


def _listen(host: str, port: int) -> socket.socket:
    """The wanted port, or any free one when another program (a second node) has it."""
    try:
        listener = bound_socket(host, port, "")
    except LocalError:
        listener = bound_socket(host, 0, "set page_host, or page_port to 0")
    listener.listen()
    return listener


def _names(shown: str) -> list[str]:
    """Values of Host under which the page may be asked."""
    host, _, port = shown.rpartition(":")
    loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    return [shown, *([f"localhost:{port}"] if loopback else [])]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _token(home: Path) -> str:
    """Drawn once for a home, readable by its user alone."""
    path = home / _TOKEN_FILE
    create_atomic(path, secrets.token_urlsafe(32).encode())
    return path.read_text(encoding="utf-8").strip()
