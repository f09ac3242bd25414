"""A coordinator's upload routes on a real socket, over a swarm in which one contribution waits for its blob."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from coordinator.small_swarm import SmallSwarm, trained
from fastapi import FastAPI
from msgspec import structs
from protocol.samples import NODE

from kinoswarm_coordinator.uploads import Uploads
from kinoswarm_coordinator.web.upload_routes import upload_routes
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.http_client import HttpSource
from kinoswarm_network.listening import bound_socket, server_of
from kinoswarm_protocol.ids import BlobId, LeaseId


@dataclass
class UploadSite:
    """What a test needs of it."""

    theirs: BlobStore
    ours: BlobStore
    swarm: SmallSwarm = field(default_factory=SmallSwarm)
    base_bytes: int = 64 * 1024 * 1024
    done: list[LeaseId] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    now_s: float = 1_000.0

    def __post_init__(self) -> None:
        self.swarm.hello(NODE)
        self.uploads = self.restarted()

    def restarted(self) -> Uploads:
        """The coordinator's side as it is after its process began anew."""
        return Uploads(
            store=self.theirs,
            state=lambda: self.swarm.state,
            on_complete=self.done.append,
            clock=lambda: self.now_s,
        )

    def waiting(self, data: bytes, claimed_bytes: int | None = None) -> tuple[LeaseId, BlobId]:
        """A submitted contribution whose delta lies with the node alone."""
        source = self.ours.root / "delta"
        source.write_bytes(data)
        blob = self.ours.add_file(source)
        lease = self.swarm.leased(NODE)
        self._place_base(BlobId(lease.order.base))
        size = len(data) if claimed_bytes is None else claimed_bytes
        outcome = structs.replace(trained(lease), delta=blob, delta_bytes=size)
        self.swarm.submit(NODE, lease, outcome)
        return LeaseId(lease.lease_id), blob

    def _place_base(self, base: BlobId) -> None:
        """Its size is all that counts."""
        path = self.theirs.root / base[:2] / base
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.truncate(path, self.base_bytes)
        path.with_suffix(".manifest").touch()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[HttpSource]:
        """The routes on a free port, and a client of them."""
        app = FastAPI()

        @app.middleware("http")
        async def note(request, call_next):
            self.asked.append(f"{request.method} {request.url.path.rsplit('/', 1)[1]}")
            return await call_next(request)

        app.include_router(upload_routes(self.uploads))
        bound = bound_socket("127.0.0.1", 0, "")
        bound.listen()
        config = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off")
        server = server_of(config)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        try:
            async with HttpSource(url, self.ours, chunk_timeout_s=5.0) as source:
                yield source
        finally:
            server.should_exit = True
            await serving
            self.uploads.close()


def upload_site(folder: Path) -> UploadSite:
    return UploadSite(BlobStore(folder / "theirs"), BlobStore(folder / "ours"))
