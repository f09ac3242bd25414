"""Real servers and a real browser for tests of pages: visits that fail on anything the browser complains about."""

import asyncio
import os
import shutil
import socket
import threading
from dataclasses import dataclass, fields
from pathlib import Path

import uvicorn
from protocol.samples import FOUNDER
from web.served import sources, with_desk

from kinoswarm_coordinator.views import SwarmView
from kinoswarm_coordinator.web.app import create_app
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_protocol.messages import Hello, Machine, Request

CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@dataclass(kw_only=True)
class Shown(WebSources):
    """The HTTP side of a view made by hand."""

    shown: SwarmView

    def view(self) -> SwarmView:
        return self.shown


class Served:
    """The application in a real server on loopback, in a thread of its own."""

    def __init__(
        self,
        folder: Path,
        shown: SwarmView | None = None,
        *,
        can_try: bool = False,
    ) -> None:
        self.sources: WebSources = with_desk(folder) if can_try else sources(folder)
        if shown is not None:
            parts = {f.name: getattr(self.sources, f.name) for f in fields(WebSources) if f.init}
            self.sources = Shown(shown=shown, **parts)
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}/"
        config = uvicorn.Config(create_app(self.sources), log_level="error", lifespan="off")
        self.server = uvicorn.Server(config)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self.server.serve(sockets=[self.socket]))
        finally:
            self.loop.close()

    def volunteer_joins(self, name: str) -> None:
        """A request as it comes from the network, in the server's own loop."""
        from kinoswarm_coordinator.requests import Asked, handle

        service = self.sources.service
        machine = Machine(device="CPU", memory_gib=4.0, seconds_per_step=0.1)
        hello = Hello(pseudonym=name, program_version="0.1.0", machine=machine, addresses=[])
        asked = Asked(
            signer=FOUNDER.peer_id,
            request=Request(request_id="2" * 32, body=hello),
            swarm=service.swarm,
            now_ms=service.now_ms(),
            seed=1,
        )
        events = handle(service.journal.state, service.rules, asked).events
        asyncio.run_coroutine_threadsafe(service.record(events), self.loop).result(10)

    def stop(self) -> None:
        self.server.should_exit = True
        self.server.force_exit = True
        self.thread.join(10)
        self.socket.close()


class Visit:
    """One page with everything that the browser complained about."""

    def __init__(self, browser, address: str, **options) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address, wait_until="domcontentloaded")

    def _heard(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def keep(self, name: str) -> None:
        """A screenshot, where somebody wants to look at them."""
        if folder := os.environ.get("KINOSWARM_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []
