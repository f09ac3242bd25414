"""Control requests over streams, both ways. Owns their exchange; what a request says is the service's business."""

import asyncio
import math
from collections.abc import Awaitable, Callable

from kinoswarm_network.host import Host
from kinoswarm_network.rate_limit import RateLimit
from kinoswarm_network.replies import receive_reply
from kinoswarm_network.stream_frames import Sending, control_protocol, refusal
from kinoswarm_network.streams import Stream
from kinoswarm_network.traffic import Counters
from kinoswarm_protocol.codec import encode
from kinoswarm_protocol.errors import Code, KinoswarmError, Refused, Unreachable
from kinoswarm_protocol.ids import PeerId, SwarmId
from kinoswarm_protocol.limits import CONTROL_TIMEOUT_S, MAX_CONTROL_FRAME

OnControl = Callable[[PeerId, bytes], Awaitable[bytes]]
"""The answer to a request of a peer whose id libp2p has proved. A KinoswarmError becomes a refusal."""


class ControlChannel:
    """Asks peers and answers them."""

    def __init__(
        self,
        host: Host,
        counters: Counters,
        swarm: SwarmId,
        on_control: OnControl,
        limit: RateLimit | None = None,
    ) -> None:
        """`limit` bounds what one peer may ask; None is no bound."""
        self._host = host
        self._counters = counters
        self._protocol = control_protocol(swarm)
        self._on_control = on_control
        self._limit = limit
        self._ending: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Answer requests from now on."""
        await self._host.serve(self._protocol, self._serve)

    async def ask(
        self, peer: PeerId, addresses: list[str], request: bytes, timeout_s: float
    ) -> bytes:
        """The peer's answer. Raises Unreachable or Refused."""
        try:
            async with asyncio.timeout(timeout_s):
                stream = await self._host.open_stream(peer, addresses, self._protocol)
                return await self._ask_on(stream, request, timeout_s)
        except TimeoutError:
            raise Unreachable(f"{peer} did not answer within {timeout_s:g} s") from None

    async def _ask_on(self, stream: Stream, request: bytes, timeout_s: float) -> bytes:
        ending = None
        try:
            await stream.send(request, timeout_s)
            answer = await receive_reply(stream, MAX_CONTROL_FRAME, timeout_s)
            ending = asyncio.create_task(_acknowledge(stream))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        finally:
            if ending is None:
                await stream.close()
        self._counters.bytes_up += len(request)
        self._counters.bytes_down += len(answer)
        return answer

    async def _serve(self, stream: Stream) -> None:
        request = await stream.receive(MAX_CONTROL_FRAME, CONTROL_TIMEOUT_S)
        self._counters.bytes_down += len(request)
        try:
            self._require_patience(stream.peer)
            answer = await self._on_control(stream.peer, request)
        except KinoswarmError as error:
            await stream.send(refusal(error), CONTROL_TIMEOUT_S)
        else:
            await stream.send(encode(Sending(size_bytes=len(answer))), CONTROL_TIMEOUT_S)
            await stream.send_raw(answer, CONTROL_TIMEOUT_S)
            self._counters.bytes_up += len(answer)
        await stream.await_acknowledgement()

    def _require_patience(self, peer: PeerId) -> None:
        """Raise Refused(rate_limited) when `peer` asks faster than it may."""
        if self._limit is None:
            return
        wait_s = self._limit.wait_s(peer, asyncio.get_running_loop().time())
        if wait_s > 0.0:
            sentence = f"you ask too often; ask again in {math.ceil(wait_s)} s"
            raise Refused(Code.RATE_LIMITED, sentence)


async def _acknowledge(stream: Stream) -> None:
    """In the background: the answer is here, its sender may close."""
    async with stream:
        try:
            await stream.acknowledge()
        except Unreachable:
            return
