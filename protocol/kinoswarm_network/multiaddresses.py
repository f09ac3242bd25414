"""Multiaddresses as text, and what goes wrong with them in plain words. Owns no connection; imports no libp2p."""

import ipaddress
from collections.abc import Sequence

from kinoswarm_protocol.errors import MalformedBytes
from kinoswarm_protocol.ids import PeerId
from kinoswarm_protocol.keys import public_key_of
from kinoswarm_protocol.limits import MAX_ADDRESS

_TRANSPORTS = ("ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr")

_ANOTHER_PEER = (
    "somebody else answers at this address: the other machine has a new identity, or the port is "
    "another program's"
)
_NO_LIBP2P = "something answers there that does not speak libp2p"
_TRIED_A_MOMENT_AGO = "it did not answer a moment ago and is not tried again so soon"
_UNKNOWN_ADDRESS = "no address of it is known"

_CONNECT_PROBLEMS = {  # p2pd's words and py-libp2p's; the first that fits counts
    "connection refused": "nobody listens there (connection refused): is the other program running, and is the port "
    "right?",
    "peer id mismatch": _ANOTHER_PEER,
    "peer id does not correspond": _ANOTHER_PEER,
    "no route to host": "there is no way to that machine from here (no route to host): check the address and "
    "the network",
    "network is unreachable": "this machine has no network that leads there",
    "i/o timeout": "no answer in time: the machine is off, or a firewall or router between drops the connection",
    "context deadline exceeded": "no answer in time: the machine is off, or a firewall or router between drops the "
    "connection",
    "dial to self attempted": "this is our own address",
    "failed to negotiate security protocol": _NO_LIBP2P,
    "failed to negotiate the secure protocol": _NO_LIBP2P,
    "no such host": "its name is not known (DNS)",
    "backoff": _TRIED_A_MOMENT_AGO,
    "negative cache": _TRIED_A_MOMENT_AGO,
    "no addresses": _UNKNOWN_ADDRESS,
    "routing: not found": "no address of it is known, and no peer could tell one",
    "failed to find any peer in table": "no address of it is known, and no peer is connected that could tell one",
}


def peer_in(address: str) -> PeerId | None:
    """The PeerId at the end of an address, or None when it has none."""
    head, found, tail = address.rpartition("/p2p/")
    return PeerId(tail) if found and head else None


def parse_address(address: str) -> PeerId:
    """The peer of an address such as /ip4/203.0.113.7/tcp/4001/p2p/12D3Koo…; raises MalformedBytes saying why not."""
    if address.startswith(("http://", "https://")):
        raise MalformedBytes("a web address, not a peer-to-peer one: it is used over HTTP instead")
    parts = address.split("/")
    if len(address) > MAX_ADDRESS or len(parts) < 4 or parts[0] or parts[1] not in _TRANSPORTS:
        raise MalformedBytes("not a multiaddress such as /ip4/203.0.113.7/tcp/4001/p2p/12D3Koo…")
    peer = peer_in(address)
    if peer is None:
        raise MalformedBytes("does not end in /p2p/<id>, so nobody could tell who answers there")
    public_key_of(peer)
    return peer


def connect_problem(message: str) -> str:
    """What libp2p said when a connection failed, in words that tell the user what to check."""
    for sign, words in _CONNECT_PROBLEMS.items():
        if sign in message:
            return words
    return f"could not connect ({message[:300]})"


def stream_problem(peer: PeerId, message: str) -> str:
    """What libp2p said when a stream could not be opened, in words."""
    if "protocols not supported" in message or "protocol not supported" in message:
        return (
            f"{peer} is reached, but takes no part in this swarm (or has an incompatible version)"
        )
    return f"{peer}: {connect_problem(message)}"


def direct_host(address: str) -> str:
    """The IP address in a multiaddress of a direct connection; empty for a relayed one and for names."""
    parts = address.split("/")
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6") or "p2p-circuit" in parts:
        return ""
    return parts[2]


def farthest_first(addresses: Sequence[str]) -> list[str]:
    """Those that work from anywhere, then those of a home's network, then this machine's own; else in their order.

    Records hold only the first few.
    """
    return sorted(addresses, key=_nearness)


def _nearness(address: str) -> int:
    try:
        host = ipaddress.ip_address(direct_host(address))
    except ValueError:
        return 0  # a name, or a relay
    if host.is_loopback or host.is_link_local:
        return 2
    return 0 if host.is_global else 1


def port_for(host: str, addresses: Sequence[str]) -> int:
    """The TCP port that is listened on at the kind of address (IPv4, IPv6) that `host` is; 0 where none is."""
    try:
        kind = f"/ip{ipaddress.ip_address(host).version}/"
    except ValueError:
        return 0
    ports = (tcp_port(address) for address in addresses if address.startswith(kind))
    return next((port for port in ports if port), 0)


def tcp_port(address: str) -> int:
    """The TCP port in a multiaddress; 0 when it names none, or any free one."""
    parts = address.split("/")
    if len(parts) < 5 or parts[3] != "tcp" or not (parts[4].isascii() and parts[4].isdecimal()):
        return 0
    port = int(parts[4][:6])
    return port if port < 65_536 else 0
