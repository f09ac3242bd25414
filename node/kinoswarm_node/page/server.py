"""Serves the local page inside the daemon's loop. Owns its socket, token and certificate; answers nothing itself."""

import asyncio
import contextlib
import ipaddress
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psutil
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
    port, scheme = listener.getsockname()[1], "https" if secure else "http"
    names = own_names(host)
    guard = Guard(_token(settings.home), [f"{_bracketed(name)}:{port}" for name in names], scheme)
    certificate = _certificate(settings.home, host, names) if secure else None
    server = _server(node, guard, certificate)
    address = f"{scheme}://{_bracketed(names[0])}:{port}/enter?token={_token(settings.home)}"
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


def _certificate(home: Path, host: str, names: Sequence[str]) -> Certificate:
    return ensure_certificate(home / f"page-{host.replace(':', '_')}.crt", "Kinoswarm node", names)


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


def own_names(host: str) -> list[str]:
    """Under which the page may be asked, the one to show first: a page on all addresses has each of them as a name."""
    address = ipaddress.ip_address(host)
    if address.is_loopback:
        return [host, "localhost"]
    if not address.is_unspecified:
        return [host]
    found = [
        ipaddress.ip_address(one.address.partition("%")[0])
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family in (socket.AF_INET, socket.AF_INET6)
    ]
    mine = [one for one in found if address.version == 6 or one.version == 4]
    mine.sort(key=lambda one: (one.is_loopback, one.is_link_local, one.version))
    named = socket.gethostname().lower()
    return [*dict.fromkeys(map(str, mine)), "localhost", named, f"{named}.local"]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _token(home: Path) -> str:
    """Drawn once for a home, readable by its user alone."""
    path = home / _TOKEN_FILE
    create_atomic(path, secrets.token_urlsafe(32).encode())
    return path.read_text(encoding="utf-8").strip()
