"""Frames on a stream of py-libp2p. Owns bounded reading with a timeout; the twin of ../streams.py, on trio.

A stream that ends early, is reset or says nothing is the peer's fault and an Unreachable, whatever libp2p calls it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from libp2p.abc import INetStream
from libp2p.exceptions import BaseLibp2pError

from kinoswarm_network.stream_frames import No, read_reply_head, refused
from kinoswarm_protocol.codec import frame, frame_length
from kinoswarm_protocol.errors import MalformedBytes, Unreachable
from kinoswarm_protocol.ids import PeerId
from kinoswarm_protocol.limits import ACKNOWLEDGE_TIMEOUT_S, MAX_BLOB_FRAME

_ACKNOWLEDGEMENT = b"\x06"
_READ_BYTES = 64 * 1024
"""Asked of libp2p at once; it hands out what one packet of the peer brought."""

LIBP2P_FAULTS = (BaseLibp2pError, OSError, EOFError, ValueError, trio.BrokenResourceError)
"""What py-libp2p raises for a peer that is gone or breaks the rules; it has no common base for them."""


class LightStream:
    """One stream to `peer`."""

    def __init__(self, peer: PeerId, stream: INetStream) -> None:
        self.peer = peer
        self._stream = stream
        self._buffer = bytearray()

    async def send(self, payload: bytes, timeout_s: float) -> None:
        """Send one frame. Raises Unreachable."""
        async with self._bounded(timeout_s, "took no data"):
            await self._stream.write(frame(payload))

    async def receive_reply(self, max_bytes: int, timeout_s: float) -> bytes:
        """The bytes of one reply. Raises Refused when the peer says no, MalformedBytes when it announces too much."""
        prefix = await self._receive(4, timeout_s)
        size = frame_length(prefix, 2 * MAX_BLOB_FRAME)
        head = read_reply_head(await self._receive(size, timeout_s))
        if isinstance(head, No):
            raise refused(head)
        if head.size_bytes > max_bytes:
            raise MalformedBytes(
                f"{self.peer} announces {head.size_bytes} bytes where at most {max_bytes} were asked for"
            )
        return await self._receive(head.size_bytes, timeout_s)

    async def acknowledge(self) -> None:
        """Tell the sender that its last frame is here: only then may it close."""
        async with self._bounded(ACKNOWLEDGE_TIMEOUT_S, "took no data"):
            await self._stream.write(_ACKNOWLEDGEMENT)

    async def close(self) -> None:
        """Let go of the stream; a peer that is gone is no error."""
        with trio.move_on_after(ACKNOWLEDGE_TIMEOUT_S, shield=True):
            try:
                await self._stream.close()
            except LIBP2P_FAULTS:
                return

    async def _receive(self, size: int, timeout_s: float) -> bytes:
        """Exactly `size` bytes, which the caller has bounded."""
        async with self._bounded(timeout_s, "sent nothing complete"):
            while len(self._buffer) < size:
                more = await self._stream.read(_READ_BYTES)
                if not more:
                    raise Unreachable(
                        f"{self.peer} ended the stream after {len(self._buffer)} of {size} bytes"
                    )
                self._buffer += more
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    @asynccontextmanager
    async def _bounded(self, timeout_s: float, fault: str) -> AsyncIterator[None]:
        try:
            with trio.fail_after(timeout_s):
                yield
        except trio.TooSlowError:
            raise Unreachable(f"{self.peer} {fault} for {timeout_s:g} s") from None
        except LIBP2P_FAULTS as error:
            raise Unreachable(
                f"{self.peer} broke the stream off ({error or type(error).__name__})"
            ) from error
