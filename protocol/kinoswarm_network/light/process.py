"""The light network process: what a service asks over its standard input, done with py-libp2p. Owns no protocol.

Knows `Start`, `Control`, `FetchBlob` and `Stop`. Ends when its input ends, so that it never outlives its service.
"""

import logging
import math
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import cast

import trio

from kinoswarm_network import ipc
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.identity import load_or_create_key
from kinoswarm_network.ipc_frames import (
    Answer,
    Call,
    Cancel,
    Frame,
    Progress,
    failure,
    pack,
    unpack,
)
from kinoswarm_network.light.fetching import LightFetch
from kinoswarm_network.light.host import LightHost, new_light_host
from kinoswarm_network.link import OnProgress
from kinoswarm_network.stream_frames import control_protocol
from kinoswarm_protocol.codec import decode, encode, frame, frame_length
from kinoswarm_protocol.errors import KinoswarmError, LocalError, MalformedBytes, Unreachable
from kinoswarm_protocol.limits import MAX_CONTROL_FRAME, MAX_IPC_FRAME

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Desk:
    """Does what is asked."""

    host: LightHost
    fetch: LightFetch
    control_protocol: str

    async def handle(self, body: ipc.Body, on_progress: OnProgress) -> ipc.Body:
        match body:
            case ipc.Control():
                return await self._control(body)
            case ipc.FetchBlob():
                path = await self.fetch.fetch(body.blob, body.providers, on_progress)
                return ipc.Blob(blob=body.blob, path=str(path))
            case _:
                raise MalformedBytes(f"{type(body).__name__} is no call to the light process")

    async def _control(self, body: ipc.Control) -> ipc.Reply:
        try:
            with trio.fail_after(body.timeout_s):
                return ipc.Reply(data=await self._ask(body))
        except trio.TooSlowError:
            problem = f"{body.peer} did not answer within {body.timeout_s:g} s"
            raise Unreachable(problem) from None

    async def _ask(self, body: ipc.Control) -> bytes:
        stream = await self.host.open_stream(body.peer, body.addresses, self.control_protocol)
        try:
            await stream.send(body.request, body.timeout_s)
            answer = await stream.receive_reply(MAX_CONTROL_FRAME, body.timeout_s)
            await stream.acknowledge()
        finally:
            await stream.close()
        return answer


class LightProcess:
    """Serves one service over a pair of pipes, which are unbuffered: a thread that waits at one holds no lock."""

    def __init__(self, reader: FileIO, writer: FileIO) -> None:
        self._reader = reader
        self._writer = writer
        self._to_write, self._outgoing = trio.open_memory_channel[Frame](math.inf)
        self._running: dict[int, trio.CancelScope] = {}

    async def run(self) -> None:
        """Serve until the service is gone or asks for the end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_all)
            first = await self._receive()
            if isinstance(first, Call) and isinstance(start := unpack(first.body), ipc.Start):
                await self._serve(first.call, start.config)
            nursery.cancel_scope.cancel()

    async def _serve(self, started_by: int, config: ipc.NetworkConfig) -> None:
        try:
            key = load_or_create_key(Path(config.key_file))
            store = BlobStore(Path(config.store) if config.store else Path(config.home) / "blobs")
        except LocalError as error:
            self._to_write.send_nowait(failure(started_by, error))
            await self._receive()
            return
        libp2p = new_light_host(key)
        async with libp2p.run(listen_addrs=[]), trio.open_nursery() as nursery:
            host = LightHost(libp2p, config.connect_timeout_s)
            fetch = LightFetch(host, store, config.swarm, config.chunk_timeout_s)
            desk = _Desk(host, fetch, control_protocol(config.swarm))
            ready = ipc.Ready(peer=key.peer_id, addresses=[])
            self._to_write.send_nowait(Answer(call=started_by, body=pack(ready)))
            await self._take_calls(desk, nursery)
            nursery.cancel_scope.cancel()

    async def _take_calls(self, desk: _Desk, nursery: trio.Nursery) -> None:
        while (received := await self._receive()) is not None:
            if isinstance(received, Cancel) and received.call in self._running:
                self._running[received.call].cancel()
            elif isinstance(received, Call):
                if isinstance(body := unpack(received.body), ipc.Stop):
                    return
                self._running[received.call] = trio.CancelScope()
                nursery.start_soon(self._answer, received.call, desk, body)

    async def _answer(self, call: int, desk: _Desk, body: ipc.Body) -> None:
        def tell(done: int, total: int) -> None:
            self._to_write.send_nowait(Progress(call=call, done=done, total=total))

        with self._running[call]:
            try:
                answer = await desk.handle(body, tell)
                self._to_write.send_nowait(Answer(call=call, body=pack(answer)))
            except KinoswarmError as error:
                self._to_write.send_nowait(failure(call, error))
            except Exception as error:  # noqa: BLE001 - one broken call must not end the process; it is told and logged
                _log.exception("a call failed")
                broken = LocalError(f"internal error, see the log: {error!r}")
                self._to_write.send_nowait(failure(call, broken))
        del self._running[call]

    async def _receive(self) -> Frame | None:
        """The next frame; None when the service is gone."""
        raw = await trio.to_thread.run_sync(self._read_frame, abandon_on_cancel=True)
        return decode(raw, cast("type[Frame]", Frame), MAX_IPC_FRAME) if raw else None

    def _read_frame(self) -> bytes:
        prefix = self._read_exactly(4)
        return self._read_exactly(frame_length(prefix, MAX_IPC_FRAME)) if prefix else b""

    def _read_exactly(self, size: int) -> bytes:
        """`size` bytes; none when the input ends before."""
        taken = bytearray()
        while len(taken) < size:
            more = self._reader.read(size - len(taken))
            if not more:
                return b""
            taken += more
        return bytes(taken)

    async def _write_all(self) -> None:
        async for outgoing in self._outgoing:
            await trio.to_thread.run_sync(self._write, frame(encode(outgoing)))

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._writer.write(rest) :]
        except BrokenPipeError:
            return  # the service is gone; its end of our input says so, too
