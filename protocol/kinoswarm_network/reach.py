"""Can strangers dial this node? A connected peer tries, back to where it sees the asker. Owns both ends.

`/kinoswarm/1/<swarm>/reach`: a frame `["reach", port]`; a frame `["reached", host, open]` or `["no", code, sentence]`;
the acknowledgement. Nobody is dialled but the asker's own observed address, and that seldom: it is no port scanner.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, cast

from msgspec import Meta, Struct

from kinoswarm_network.host import Host
from kinoswarm_network.stream_frames import No, refusal, refused
from kinoswarm_network.streams import Stream
from kinoswarm_protocol.codec import decode, encode
from kinoswarm_protocol.errors import Code, KinoswarmError, Refused
from kinoswarm_protocol.ids import PeerId, SwarmId
from kinoswarm_protocol.limits import (
    CONTROL_TIMEOUT_S,
    DIAL_BACK_EVERY_S,
    DIAL_BACK_TIMEOUT_S,
    MAX_BLOB_FRAME,
    PROTOCOL_VERSION,
)

_MULTISTREAM = b"\x13/multistream/1.0.0\n"
"""What every libp2p listener says first, and wants to hear."""

_MOST_HOSTS = 1_024


class Reach(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="reach"):
    """Please dial my TCP port at the address that you see me at."""

    port: Annotated[int, Meta(ge=1, le=65_535)]


class Reached(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="reached"):
    """What came of it."""

    host: Annotated[str, Meta(max_length=64)]
    """The IP address that was dialled."""
    open: bool
    """Whether a libp2p listener answered there."""


def reach_protocol(swarm: SwarmId) -> str:
    """The libp2p protocol of these streams."""
    return f"/kinoswarm/{PROTOCOL_VERSION}/{swarm}/reach"


class DialBackDesk:
    """Dials back for others."""

    def __init__(self, host: Host, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._clock = clock
        self._tried: OrderedDict[str, float] = OrderedDict()
        """When an address was last dialled; the oldest first."""

    async def serve(self, stream: Stream) -> None:
        """Answer one asker."""
        try:
            asked = decode(
                await stream.receive(MAX_BLOB_FRAME, CONTROL_TIMEOUT_S), Reach, MAX_BLOB_FRAME
            )
            answer = encode(await self._try(stream.peer, asked.port))
        except KinoswarmError as error:
            answer = refusal(error)
        await stream.send(answer, CONTROL_TIMEOUT_S)
        await stream.await_acknowledgement()

    async def _try(self, peer: PeerId, port: int) -> Reached:
        host = (await self._host.seen_at()).get(peer, "")
        if not host:
            raise Refused(Code.NOT_FOUND, "you are not connected directly, so nothing is known")
        self._count(host)
        return Reached(host=host, open=await speaks_libp2p(host, port, DIAL_BACK_TIMEOUT_S))

    def _count(self, host: str) -> None:
        now_s = self._clock()
        if now_s - self._tried.get(host, -DIAL_BACK_EVERY_S) < DIAL_BACK_EVERY_S:
            raise Refused(Code.RATE_LIMITED, "your address was dialled a moment ago; ask later")
        self._tried.pop(host, None)
        self._tried[host] = now_s
        if len(self._tried) > _MOST_HOSTS:
            self._tried.popitem(last=False)


async def speaks_libp2p(host: str, port: int, timeout_s: float) -> bool:
    """Whether a libp2p listener answers there; every other answer and none is a no."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_MULTISTREAM)
                return await reader.readexactly(len(_MULTISTREAM)) == _MULTISTREAM
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


async def ask_to_dial_back(host: Host, swarm: SwarmId, peer: PeerId, port: int) -> Reached:
    """What a connected peer found. Raises Unreachable, Refused (too often), or what is wrong with its answer."""
    async with await host.open_stream(peer, [], reach_protocol(swarm)) as stream:
        await stream.send(encode(Reach(port=port)), CONTROL_TIMEOUT_S)
        wait_s = DIAL_BACK_TIMEOUT_S + CONTROL_TIMEOUT_S
        raw = await stream.receive(2 * MAX_BLOB_FRAME, wait_s)
        await stream.acknowledge()
    answer = decode(raw, cast("type[Reached | No]", Reached | No), 2 * MAX_BLOB_FRAME)
    if isinstance(answer, No):
        raise refused(answer)
    return answer
