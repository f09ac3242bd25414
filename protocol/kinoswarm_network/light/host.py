"""Our end of libp2p in pure Python: dials peers and opens streams to them. Listens nowhere; owns py-libp2p's host.

Must not know what a stream carries.
"""

import multiaddr
import multiaddr.exceptions
import trio
from libp2p import new_host
from libp2p.abc import IHost
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo

from kinoswarm_network.light.stream import LIBP2P_FAULTS, LightStream
from kinoswarm_network.multiaddresses import connect_problem, peer_in, stream_problem
from kinoswarm_protocol.errors import MalformedBytes, Unreachable
from kinoswarm_protocol.ids import PeerId
from kinoswarm_protocol.keys import KeyPair

_ERRORS_TOLD = 16


def new_light_host(key: KeyPair) -> IHost:
    """A host with the identity of `key`; `host.run(listen_addrs=[])` starts it."""
    return new_host(key_pair=create_new_key_pair(key.seed))


class LightHost:
    """Opens streams over a running host of py-libp2p."""

    def __init__(self, host: IHost, connect_timeout_s: float) -> None:
        self._host = host
        self._connect_timeout_s = connect_timeout_s

    async def open_stream(self, peer: PeerId, addresses: list[str], protocol: str) -> LightStream:
        """A new stream to `peer`. Raises Unreachable in plain words, MalformedBytes for unusable addresses."""
        dialled = _dialled(peer, addresses)
        peer_id = ID.from_string(peer)
        network = self._host.get_network()
        assert isinstance(network, Swarm)
        network.unblock_peer(peer_id)  # a refusal of a moment ago would hide why it fails now
        try:
            with trio.fail_after(self._connect_timeout_s):
                await self._host.connect(PeerInfo(peer_id, dialled))
                stream = await self._host.new_stream(peer_id, [TProtocol(protocol)])
        except trio.TooSlowError:
            raise Unreachable(f"{peer}: {connect_problem('i/o timeout')}") from None
        except LIBP2P_FAULTS as error:
            raise Unreachable(stream_problem(peer, _whole_story(error))) from error
        return LightStream(peer, stream)


def _dialled(peer: PeerId, addresses: list[str]) -> list[multiaddr.Multiaddr]:
    """The usable TCP ones of `addresses`, without their /p2p suffix, which must name `peer`."""
    dialled, problems = [], []
    for address in addresses:
        if peer_in(address) not in (None, peer):
            problems.append(f"{address[:200]!r} belongs to another peer than {peer}")
        elif "/tcp/" not in address or "/p2p-circuit" in address:
            problems.append(f"{address[:200]!r} is no TCP address; the light client knows only TCP")
        else:
            try:
                dialled.append(multiaddr.Multiaddr(address.removesuffix(f"/p2p/{peer}")))
            except (multiaddr.exceptions.Error, ValueError) as error:
                problems.append(f"{address[:200]!r} is not a multiaddress ({error})")
    if not dialled:
        raise MalformedBytes("; ".join(problems) or f"no address of {peer} is known")
    return dialled


def _whole_story(error: BaseException) -> str:
    """What an error says with everything that led to it: py-libp2p keeps the reason at the bottom, or in a list."""
    told: list[str] = []
    waiting: list[BaseException] = [error]
    while waiting and len(told) < _ERRORS_TOLD:
        found = waiting.pop(0)
        told.append((found.strerror or "").lower() if isinstance(found, OSError) else str(found))
        inner = getattr(found, "errors", None) or getattr(found, "exceptions", None) or ()
        causes = (found.__cause__ or found.__context__, *inner)
        waiting += [cause for cause in causes if isinstance(cause, BaseException)]
    return ": ".join(filter(None, told))
