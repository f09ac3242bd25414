"""Sockets and servers of pages that live inside a service's own loop. Owns how they are bound; answers nothing."""

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

from kinoswarm_protocol.errors import LocalError

if TYPE_CHECKING:
    import uvicorn


def bound_socket(host: str, port: int, remedy: str) -> socket.socket:
    """Bind before anything else starts, so that a taken port is told at once. 0 takes any free port.

    Raises LocalError that ends with `remedy`.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if sys.platform != "win32":  # there it would let two programs have one port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if host == "::":
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # and IPv4 too
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise LocalError(f"can't listen on {host}:{port} ({error.strerror}); {remedy}") from error
    return bound


def server_of(config: "uvicorn.Config") -> "uvicorn.Server":
    """A server that leaves signals to the program it runs in."""
    import uvicorn

    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    return server
