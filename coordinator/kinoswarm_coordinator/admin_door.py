"""Where signed admin requests come in: a local socket, apart from the public listener. Owns that door.

Only the owner of the coordinator's home may open the socket; a request must be signed by an admin's key all the same.
"""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from kinoswarm_coordinator.administration import administer
from kinoswarm_coordinator.service import Service
from kinoswarm_protocol.admin import ADMIN, MAX_ADMIN_BYTES, AdminAction, AdminAnswer, AdminRequest
from kinoswarm_protocol.codec import decode, encode, frame
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.errors import LocalError, RemoteError
from kinoswarm_protocol.ids import PeerId, SwarmId
from kinoswarm_protocol.keys import KeyPair

_log = structlog.get_logger("admin")
_MAX_FRAME = MAX_ADMIN_BYTES + 1024
_TIMEOUT_S = 10.0
_LONGEST_SOCKET_PATH = 100


@dataclass(frozen=True, kw_only=True)
class AdminDoor:
    """Takes requests until cancelled."""

    service: Service
    admins: frozenset[PeerId]
    path: Path
    port: int

    async def run(self) -> None:
        """Take requests until cancelled."""
        async with self.open():
            await asyncio.Future()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen on the socket, and on a loopback port when one is set."""
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(await self._local())
            if self.port:
                served = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
                await stack.enter_async_context(served)
            yield

    async def answer(self, raw: bytes) -> AdminAnswer:
        """Carry out one signed request, durably, and say what came of it."""
        service = self.service
        try:
            opened = open_envelope(raw, ADMIN, service.swarm)
        except RemoteError as error:
            return AdminAnswer(done=False, sentence=str(error)[:500])
        state = service.journal.state
        result = administer(
            state, service.rules, self.admins, opened.signer, opened.body, service.now_ms()
        )
        _log.info(
            "asked", signer=opened.signer, done=result.answer.done, why=result.answer.sentence
        )
        await service.record(result.events)
        return result.answer

    async def _local(self) -> asyncio.Server:
        self.path.unlink(missing_ok=True)
        bound = socket.socket(socket.AF_UNIX)
        with _short(self.path) as path:
            bound.bind(path)
        self.path.chmod(0o600)
        return await asyncio.start_unix_server(self._serve, sock=bound)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await self.answer(await _read_frame(reader))
                writer.write(frame(encode(answer)))
                await writer.drain()
        except (OSError, EOFError, TimeoutError, RemoteError) as error:
            _log.info("broke off", why=str(error) or type(error).__name__)
        finally:
            writer.close()


async def ask_coordinator(
    path: Path, key: KeyPair, swarm: SwarmId, action: AdminAction, now_ms: int
) -> AdminAnswer:
    """Sign an action and hand it to the coordinator that runs over this socket. Raises LocalError when none does."""
    request = AdminRequest(request_id=secrets.token_hex(16), at_ms=now_ms, action=action)
    raw = seal(key, ADMIN, swarm, request)
    try:
        with _short(path) as short:
            reader, writer = await asyncio.open_unix_connection(short)
        async with asyncio.timeout(_TIMEOUT_S):
            writer.write(frame(raw))
            answer = decode(await _read_frame(reader), AdminAnswer, _MAX_FRAME)
        writer.close()
    except (OSError, EOFError, TimeoutError) as error:
        raise LocalError(
            f"no coordinator answers at {path} ({error or type(error).__name__}); start it with "
            "`kinoswarm swarm serve`, then ask again"
        ) from error
    return answer


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > _MAX_FRAME:
        raise EOFError(f"a frame of {size} bytes, at most {_MAX_FRAME}")
    return await reader.readexactly(size)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """The path by another name where it is longer than the kernel takes for a socket (108 bytes)."""
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
