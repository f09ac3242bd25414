"""Frames on a libp2p stream. Owns bounded reading with a timeout and the handshake that ends a stream.

A stream that is closed right after writing may lose its tail, and a peer killed mid-stream looks like a normal end.
So everything is length-prefixed, and whoever sent last waits for the receiver's acknowledgement before closing.
"""

import asyncio
from types import TracebackType

from kinoswarm_protocol.codec import frame, frame_length
from kinoswarm_protocol.errors import Unreachable
from kinoswarm_protocol.ids import PeerId
from kinoswarm_protocol.limits import ACKNOWLEDGE_TIMEOUT_S, MIB

_ACKNOWLEDGEMENT = b"\x06"  # ASCII ACK
_READ_AHEAD_BYTES = 1 * MIB
"""asyncio's 64 KiB has it stop and start reading many times a chunk, each at the price of two system calls."""


class Stream:
    """One libp2p stream to `peer`. Every read has a timeout; every fault of the other side is an Unreachable."""

    def __init__(
        self, peer: PeerId, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.peer = peer
        self._reader = reader
        self._reader._limit = _READ_AHEAD_BYTES  # type: ignore[attr-defined]  # hivemind opens it without asking
        self._writer = writer

    async def __aenter__(self) -> "Stream":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the stream; what was not acknowledged may be lost."""
        self._writer.close()

    async def send(self, payload: bytes, timeout_s: float) -> None:
        """Send one frame."""
        await self.send_raw(frame(payload), timeout_s)

    async def send_raw(self, data: bytes, timeout_s: float) -> None:
        """Send bytes whose length a frame before them told."""
        try:
            async with asyncio.timeout(timeout_s):
                self._writer.write(data)
                await self._writer.drain()
        except TimeoutError:
            raise Unreachable(f"{self.peer} took no data for {timeout_s:g} s") from None
        except ConnectionError as error:
            raise Unreachable(f"{self.peer} closed the stream while we were sending") from error

    async def receive(self, max_bytes: int, timeout_s: float) -> bytes:
        """Receive one frame. Raises LimitExceeded before anything of a longer one is read."""
        prefix = await self.receive_raw(4, timeout_s)
        return await self.receive_raw(frame_length(prefix, max_bytes), timeout_s)

    async def receive_raw(self, size: int, timeout_s: float) -> bytes:
        """Receive exactly `size` bytes."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._reader.readexactly(size)
        except TimeoutError:
            raise Unreachable(f"{self.peer} sent nothing complete for {timeout_s:g} s") from None
        except asyncio.IncompleteReadError as error:
            raise Unreachable(
                f"{self.peer} ended the stream after {len(error.partial)} of {size} bytes"
            ) from error
        except ConnectionError as error:
            raise Unreachable(f"{self.peer} broke the stream off") from error

    async def acknowledge(self) -> None:
        """Tell the sender that its last frame is here, and wait until it has closed."""
        await self.send_raw(_ACKNOWLEDGEMENT, ACKNOWLEDGE_TIMEOUT_S)
        try:
            async with asyncio.timeout(ACKNOWLEDGE_TIMEOUT_S):
                await self._reader.read(1)
        except (TimeoutError, ConnectionError):
            return  # it has our frame or it has gone; either way nothing is lost

    async def await_acknowledgement(self) -> None:
        """Wait until the receiver has our last frame; raises Unreachable when it never says so."""
        await self.receive_raw(len(_ACKNOWLEDGEMENT), ACKNOWLEDGE_TIMEOUT_S)
