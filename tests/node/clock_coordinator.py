"""A coordinator whose clock is off, behind the real HTTP routes; and one that is nobody's. For the doctor's tests."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import uvicorn
from fastapi import FastAPI
from protocol.samples import COORDINATOR, SWARM

from kinoswarm_coordinator.web.network_routes import network_routes
from kinoswarm_network.listening import bound_socket, server_of
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import REPLY, REQUEST, Reply
from kinoswarm_protocol.swarm_status import SwarmStatus

_STATUS = SwarmStatus(
    swarm_name="Test swarm",
    now_ms=0,
    nodes=[],
    num_nodes=0,
    clusters=[],
    release=None,
    accepted=0,
    rejected=0,
    sentence="",
)


@asynccontextmanager
async def clock_coordinator(ahead_ms: int, signer: KeyPair = COORDINATOR) -> AsyncIterator[str]:
    """Its address. It says that it is `ahead_ms` later than it is."""

    async def control(raw: bytes, _host: str) -> bytes:
        request = open_envelope(raw, REQUEST, SWARM).body
        now_ms = int(time.time() * 1000) + ahead_ms
        reply = Reply(request_id=request.request_id, time_ms=now_ms, body=_STATUS)
        return seal(signer, REPLY, SWARM, reply)

    app = FastAPI()
    app.include_router(network_routes(SimpleNamespace(control=control, charter_chain=lambda: b"")))
    bound = bound_socket("127.0.0.1", 0, "")
    bound.listen()
    config = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off")
    server = server_of(config)
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
