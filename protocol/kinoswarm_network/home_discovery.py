"""Peers of the same swarm in the home network, by mDNS (RFC 6762, RFC 6763). Owns what is told and what is believed.

Everybody in that network hears it, so it is off unless the owner wants it. What is heard is a hint: only addresses of
home networks are dialled, each must name its peer, and libp2p proves who answers.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kinoswarm_network.multiaddresses import direct_host, parse_address
from kinoswarm_protocol.errors import LocalError, MalformedBytes
from kinoswarm_protocol.ids import PeerId, SwarmId

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

SERVICE = "_kinoswarm._tcp.local."
MOST_ADDRESSES = 4
_MOST_PEERS = 16
"""More are no home; it bounds what a hostile machine there can have this one dial."""
_ASK_MS = 2_000
_LOOK_AGAIN_S = 60.0
_log = logging.getLogger(__name__)

Addresses = Callable[[], Awaitable[Sequence[str]]]
Meet = Callable[[list[str]], Awaitable[object]]


def told(swarm: SwarmId, addresses: Sequence[str]) -> dict[str, str]:
    """What this node says in its home network."""
    near = [address for address in addresses if is_near(address)][:MOST_ADDRESSES]
    return {"swarm": swarm, **{f"address{number}": one for number, one in enumerate(near)}}


def believed(properties: Mapping[bytes, bytes | None], swarm: SwarmId, own: PeerId) -> list[str]:
    """Which addresses of what somebody said may be dialled; none of another swarm, none that leads out of the home."""
    if properties.get(b"swarm") != swarm.encode():
        return []
    found = []
    for number in range(MOST_ADDRESSES):
        address = (properties.get(f"address{number}".encode()) or b"").decode(errors="replace")
        try:
            peer = parse_address(address)
        except MalformedBytes:
            continue
        if peer != own and is_near(address):
            found.append(address)
    return found


def is_near(address: str) -> bool:
    """Whether a multiaddress lies in this machine's own network."""
    try:
        host = ipaddress.ip_address(direct_host(address))
    except ValueError:
        return False
    return host.is_private and not host.is_unspecified


class HomeDiscovery:
    """Tells and listens until it is cancelled; where it can't, it says so and waits."""

    def __init__(
        self, swarm: SwarmId, own: PeerId, addresses: Addresses, meet: Meet, listen: Sequence[str]
    ) -> None:
        """`listen`: a node that listens on this machine alone is told of on this machine alone."""
        self._swarm, self._own = swarm, own
        self._addresses, self._meet = addresses, meet
        self._is_alone = all(_is_loopback(address) for address in listen)
        self._heard: asyncio.Queue[str] = asyncio.Queue(4 * _MOST_PEERS)
        self._met: set[str] = set()

    async def run(self) -> None:
        """See the class."""
        try:
            zeroconf = _open(self._is_alone)
        except (LocalError, OSError) as error:
            _log.warning("peers in the home network are not looked for: %s", error)
            await asyncio.Event().wait()
            return
        try:
            await self._tell_and_listen(zeroconf)
        finally:
            await zeroconf.async_close()

    async def _tell_and_listen(self, zeroconf: "AsyncZeroconf") -> None:
        from zeroconf.asyncio import AsyncServiceBrowser

        known = await self._addresses()
        await zeroconf.async_register_service(self._info(known), allow_name_change=True)
        AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[self._hear])
        while True:
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    name = await self._heard.get()
            except TimeoutError:
                known = await self._tell_news(zeroconf, known)
                continue
            await self._look_at(zeroconf, name)

    async def _tell_news(self, zeroconf: "AsyncZeroconf", known: Sequence[str]) -> Sequence[str]:
        now = await self._addresses()
        if now != known:
            await zeroconf.async_update_service(self._info(now))
        return now

    async def _look_at(self, zeroconf: "AsyncZeroconf", name: str) -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        info = AsyncServiceInfo(SERVICE, name)
        if len(self._met) >= _MOST_PEERS or not await info.async_request(
            zeroconf.zeroconf, _ASK_MS
        ):
            return
        found = believed(info.properties, self._swarm, self._own)
        if found:
            self._met.add(name)
            await self._meet(found)

    def _hear(self, name: str, **_: Any) -> None:
        """Something changed about a name; called on this loop."""
        if not self._heard.full():
            self._heard.put_nowait(name)

    def _info(self, addresses: Sequence[str]) -> "AsyncServiceInfo":
        from zeroconf.asyncio import AsyncServiceInfo

        name = f"{self._own}.{SERVICE}"
        return AsyncServiceInfo(
            SERVICE,
            name,
            port=1,  # the multiaddresses carry their own
            parsed_addresses=sorted({direct_host(one) for one in addresses if is_near(one)}),
            properties=dict(told(self._swarm, addresses)),
            server=f"{self._own}.local.",
        )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(direct_host(address)).is_loopback
    except ValueError:
        return False


def _open(alone: bool) -> "AsyncZeroconf":
    try:
        from zeroconf import InterfaceChoice
        from zeroconf.asyncio import AsyncZeroconf
    except ImportError as error:
        raise LocalError("zeroconf is not installed: pip install 'kinoswarm[network]'") from error
    return AsyncZeroconf(interfaces=["127.0.0.1"] if alone else InterfaceChoice.All)
