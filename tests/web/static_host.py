"""Any static host, for tests: serves a folder on loopback."""

import asyncio
import socket
import threading
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from kinoswarm_coordinator.web.mirror_app import mirror_app


class StaticHost:
    """A server in a thread of its own."""

    def __init__(self, folder: Path, app: Starlette | None = None) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}/"
        config = uvicorn.Config(app or mirror_app(folder), log_level="error", lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.run(self.server.serve(sockets=[self.socket]))

    def stop(self) -> None:
        self.server.should_exit = True
        self.server.force_exit = True
        self.thread.join(10)
        self.socket.close()
