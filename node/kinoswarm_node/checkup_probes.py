"""Measures what the doctor reports: disk, card, ports, names, each address of an invite. Owns no judgement.

Leaves nothing behind: it works under a key of no meaning, in a folder that is removed.
"""

import asyncio
import contextlib
import errno
import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from msgspec import structs

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.client import NetworkClient, NetworkConfig, ReachReport
from kinoswarm_network.coordinator_client import CoordinatorClient, reason_of
from kinoswarm_network.http_client import HttpSource
from kinoswarm_network.identity import load_or_create_key
from kinoswarm_network.multiaddresses import tcp_port
from kinoswarm_node.checkup import (
    Finding,
    State,
    Way,
    Where,
    judge_card,
    judge_clock,
    judge_dial_back,
    judge_disk,
    judge_port,
    judge_reach,
    judge_relay,
    judge_way,
    judge_ways,
    proven_ahead,
)
from kinoswarm_node.governor.gpu_sense import open_gpu_sense
from kinoswarm_node.home import Home, running_pid
from kinoswarm_node.peer_network import peer_addresses, web_addresses
from kinoswarm_node.settings import NodeSettings
from kinoswarm_node.swarm_visit import Learning
from kinoswarm_protocol.errors import Code, KinoswarmError, LocalError, Refused, RemoteError
from kinoswarm_protocol.ids import PeerId
from kinoswarm_protocol.invite import Invite
from kinoswarm_protocol.limits import CONNECT_TIMEOUT_S
from kinoswarm_protocol.messages import AskStatus
from kinoswarm_protocol.swarm_status import SwarmStatus

_OUTSIDE = {socket.AF_INET: ("192.0.2.1", 9), socket.AF_INET6: ("2001:db8::1", 9)}
"""Documentation addresses (RFC 5737, RFC 3849): choosing a route to them sends nothing."""

_IP_FAMILIES = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6}


def examine_machine(settings: NodeSettings) -> list[Finding]:
    """What needs no swarm: disk, card, ports, the way out."""
    folder = next(p for p in (settings.home, *settings.home.parents) if p.exists())
    free = shutil.disk_usage(folder).free
    card = settings.device != "cpu" and open_gpu_sense(
        "cuda" if settings.device == "auto" else settings.device
    )
    listen = [] if settings.https_only else settings.listen
    is_running = running_pid(Home(settings.home)) is not None
    return [
        judge_disk(free, settings.keep_free_bytes, str(settings.home)),
        judge_card(settings.device, bool(card)),
        *(_examine_port(address, is_running) for address in listen),
        judge_reach(own_address(), listen),
        *([] if settings.https_only else [judge_relay(settings.relay_for_others)]),
    ]


def free_listen(settings: NodeSettings) -> list[str]:
    """Where the doctor may listen as the node would: nowhere while the node itself does, or where it never would."""
    is_running = running_pid(Home(settings.home)) is not None
    return [] if is_running or settings.https_only else list(settings.listen)


async def examine_swarm(
    invite: Invite, listen: Sequence[str] = (), https_only: bool = False
) -> list[Finding]:
    """Each name and each address of the invite, one by one, and the clock against those that answer.

    Peers that answer dial back at `listen`; it is empty while a running node has the ports. A node of
    `https_only` has no use for peers, so they are not asked.
    """
    if https_only:
        invite = structs.replace(invite, addresses=web_addresses(invite.addresses))
    with tempfile.TemporaryDirectory(prefix="kinoswarm-doctor-") as folder:
        web, (peers, reach) = await asyncio.gather(
            asyncio.gather(
                *(_ask_web(url, invite, Path(folder)) for url in web_addresses(invite.addresses))
            ),
            _ask_peers(invite, Path(folder), listen),
        )
    names = await asyncio.gather(*(_resolve(name) for name in _host_names(invite.addresses)))
    unknown = {name.host for name in names if not name.known}
    ways = [_without_name(way, unknown) for way in (*peers, *web)]
    extra = [finding for finding in (judge_clock(ways), judge_dial_back(reach)) if finding]
    return [
        *(_judge_name(name) for name in names),
        *(judge_way(way, any(not other.problem for other in ways)) for way in ways),
        judge_ways(ways),
        *extra,
    ]


def own_address() -> str:
    """The address that this machine uses towards the internet, IPv4 first; empty without a route. Sends nothing."""
    for family, outside in _OUTSIDE.items():
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(outside)
            return str(probe.getsockname()[0])
    return ""


def _examine_port(address: str, is_running: bool) -> Finding:
    parts, port = address.split("/"), tcp_port(address)
    if not port or parts[1] not in _IP_FAMILIES:
        return judge_port(address, None, "", is_running)
    try:
        with socket.socket(_IP_FAMILIES[parts[1]], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((parts[2], port))
    except OSError as error:
        held_by = _holder_of(port) if error.errno == errno.EADDRINUSE else ""
        return judge_port(address, error.errno or 0, held_by, is_running)
    return judge_port(address, None, "", is_running)


def _holder_of(port: int) -> str:
    """The program that listens on a TCP port; empty when this user may not see it."""
    try:
        listening = psutil.net_connections("tcp")
        pid = next((c.pid for c in listening if c.laddr and c.laddr.port == port and c.pid), None)
        return f"{psutil.Process(pid).name()} (process {pid})" if pid is not None else ""
    except psutil.Error:
        return ""


async def _ask_web(url: str, invite: Invite, folder: Path) -> Way:
    """A signed answer of a coordinator, or why not."""
    key = load_or_create_key(folder / "doctor.key")
    started_s = time.monotonic()
    try:
        async with HttpSource(
            url, BlobStore(folder / "blobs"), invite.certificate_sha256
        ) as source:
            client = CoordinatorClient(key, invite.swarm, invite.coordinators, [source])
            client.learn = Learning(client, [source]).learn
            await client.ask(AskStatus(), SwarmStatus)
    except KinoswarmError as error:
        return Way(address=url, problem=reason_of(error, url))
    took_ms = round((time.monotonic() - started_s) * 1000)
    ahead_ms = proven_ahead(client.clock_ahead_ms, took_ms)
    return Way(address=url, problem="", clock_ahead_ms=ahead_ms)


async def _ask_peers(
    invite: Invite, folder: Path, listen: Sequence[str]
) -> tuple[list[Way], ReachReport]:
    """Each bootstrap peer, dialled by a network process of its own; and whether they can dial it back."""
    addresses = peer_addresses(invite.addresses)
    reach = ReachReport(asked=0, reached=False)
    if not addresses:
        return [], reach
    config = NetworkConfig(
        home=str(folder / "network"),
        swarm=invite.swarm,
        key_file=str(folder / "doctor-peer.key"),
        founder=invite.founder,
        coordinators=list(invite.coordinators),
        listen=list(listen),
        client_mode=True,
    )
    try:
        client = await NetworkClient.start(config, _answer_nobody)
    except LocalError as error:
        return [Way(address=address, problem=str(error)) for address in addresses], reach
    try:
        found = (await client.connect(addresses)).reports
        reach = await client.reach()
    except RemoteError as error:
        return [Way(address=address, problem=str(error)) for address in addresses], reach
    finally:
        await client.stop()
    ways = [
        Way(address=r.address, problem=r.problem, clock_ahead_ms=r.clock_ahead_ms) for r in found
    ]
    return ways, reach


@dataclass(frozen=True)
class _Name:
    """A host name of the invite, and whether DNS knows it."""

    host: str
    known: bool


def _host_names(addresses: Sequence[str]) -> list[str]:
    """The names in the addresses that DNS must know, each once."""
    found = [_host_in(a) for a in (*web_addresses(addresses), *peer_addresses(addresses))]
    return [name for name in dict.fromkeys(found) if name]


def _host_in(address: str) -> str:
    """The host name in an address; empty for an IP address."""
    if address.startswith("/"):
        return address.split("/")[2] if address.startswith("/dns") else ""
    name = urlsplit(address).hostname or ""
    return "" if ":" in name or name.replace(".", "").isdecimal() else name


def _without_name(way: Way, unknown: set[str]) -> Way:
    """The same way; when DNS does not know its name, that is what is wrong with it."""
    if way.problem and _host_in(way.address) in unknown:
        return structs.replace(way, problem="its name is not known (DNS)")
    return way


async def _resolve(host: str) -> _Name:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await asyncio.get_running_loop().getaddrinfo(host, None)
    except (OSError, TimeoutError, UnicodeError):
        return _Name(host, known=False)
    return _Name(host, known=True)


def _judge_name(name: _Name) -> Finding:
    if name.known:
        return Finding(
            name=f"name {name.host}", state=State.FINE, sentence="DNS knows it", where=Where.THERE
        )
    return Finding(
        name=f"name {name.host}",
        state=State.ADVICE,
        sentence="DNS does not know it, or does not answer",
        to_do="if no name works, check the DNS server in this machine's network settings; else ask for a fresh "
        "invite",
        where=Where.THERE,
    )


async def _answer_nobody(peer: PeerId, request: bytes) -> bytes:
    """The doctor takes no control requests."""
    raise Refused(Code.NOT_PERMITTED, "this is a visitor, not a coordinator")
