"""A scripted coordinator behind its real HTTP routes alone: no network process on its side, no peer anywhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import uvicorn
from fastapi import FastAPI
from msgspec import structs
from node.real_swarm import make_blobs, tiny_model
from node.scripted import World
from protocol.samples import COORDINATOR, FOUNDER, invite

from kinoswarm_coordinator.uploads import Uploads
from kinoswarm_coordinator.web.network_routes import network_routes
from kinoswarm_coordinator.web.upload_routes import upload_routes
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.listening import bound_socket, server_of
from kinoswarm_protocol.envelope import open_envelope
from kinoswarm_protocol.invite import write_invite
from kinoswarm_protocol.messages import LEASE

DEAD_PEER = f"/ip4/127.0.0.1/tcp/1/p2p/{COORDINATOR.peer_id}"


@dataclass
class WebSwarm:
    """What a test needs of it."""

    world: World
    store: BlobStore
    url: str

    def invite_text(self, *more_addresses: str) -> str:
        """With the web address, and others before it."""
        changed = structs.replace(
            invite(), swarm=self.world.swarm, addresses=[*more_addresses, self.url]
        )
        return write_invite(FOUNDER, changed)


def _state_of(world: World) -> SimpleNamespace:
    """A coordinator's state, as far as uploads ask: every submitted contribution waits for its blob."""
    leases = [
        open_envelope(raw, LEASE, world.swarm).body for raw in world.leases_by_request.values()
    ]
    return SimpleNamespace(
        leases={lease.lease_id: lease for lease in leases},
        work={name: SimpleNamespace(outcome=c.outcome) for name, c in world.contributions.items()},
        unsettled=set(world.contributions),
    )


def _routes(world: World, store: BlobStore) -> FastAPI:
    async def control(raw: bytes, _host: str) -> bytes:
        return await world.ask(raw)

    sources = SimpleNamespace(
        control=control,
        manifest_bytes=store.manifest_bytes,
        blob_path=store.path_of,
        charter_chain=world.chain,
    )
    app = FastAPI()
    app.include_router(network_routes(sources))
    app.include_router(upload_routes(Uploads(store=store, state=lambda: _state_of(world))))
    return app


@asynccontextmanager
async def web_swarm(folder: Path, steps: int) -> AsyncIterator[WebSwarm]:
    """Started, and ended with everything that belongs to it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny_model()
    base, shard = await asyncio.to_thread(make_blobs, folder, model)
    world = World(
        folder,
        charter_changes={"model": model},
        base=base.read_bytes(),
        shard=shard.read_bytes(),
        steps=steps,
        node_key=None,
    )
    store = BlobStore(folder / "blobs")
    charter_file = folder / "charter.bin"
    charter_file.write_bytes(world.charter_raw)
    for path in (base, shard, charter_file):
        assert store.add_file(path) in world.blobs
    bound = bound_socket("127.0.0.1", 0, "")
    bound.listen()
    config = uvicorn.Config(
        _routes(world, store), log_level="critical", access_log=False, lifespan="off"
    )
    server = server_of(config)
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        yield WebSwarm(world, store, f"http://127.0.0.1:{bound.getsockname()[1]}")
    finally:
        server.should_exit = True
        await serving
