"""The network process: puts host, directory, store, exchange and control together and does what the service asks.

Owns no protocol of its own. Ends when the service's socket closes or p2pd dies.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from kinoswarm_network import ipc
from kinoswarm_network.announcing import MAX_ANNOUNCED, BlobAnnouncer
from kinoswarm_network.blob_server import BlobServer
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.control import ControlChannel
from kinoswarm_network.daemon import DaemonFiles
from kinoswarm_network.directory import ClockOff, Directory
from kinoswarm_network.download import Means
from kinoswarm_network.exchange import Exchange
from kinoswarm_network.hivemind_parts import load_hivemind
from kinoswarm_network.home_discovery import HomeDiscovery
from kinoswarm_network.home_folder import HomeFolder
from kinoswarm_network.host import Host
from kinoswarm_network.identity import load_or_create_key, write_libp2p_identity
from kinoswarm_network.link import Link, OnProgress
from kinoswarm_network.multiaddresses import parse_address, port_for
from kinoswarm_network.rate_caps import Caps, month_of_process
from kinoswarm_network.rate_limit import limit_or_none
from kinoswarm_network.reach import DialBackDesk, Reached, ask_to_dial_back, reach_protocol
from kinoswarm_network.scrub import Scrub
from kinoswarm_network.shelved_store import open_store
from kinoswarm_network.sightings import Sightings
from kinoswarm_network.stream_frames import blob_protocol
from kinoswarm_network.traffic import Counters
from kinoswarm_protocol.errors import LocalError, MalformedBytes, RemoteError
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.limits import (
    CONTROL_TIMEOUT_S,
    MAX_PROVIDER_ADDRESSES,
    PEERS_THAT_DIAL_BACK,
    PROVIDERS_LOOKED_FOR,
)
from kinoswarm_protocol.records import Authority, ProviderRecord, seal_record

_PROGRESS_EVERY_S = 0.1
_ADDRESSES_KEPT = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Parts:
    """Everything that exists once the process has started."""

    config: ipc.NetworkConfig
    home: HomeFolder
    host: Host
    directory: Directory
    store: BlobStore
    exchange: Exchange
    control: ControlChannel
    counters: Counters
    caps: Caps
    announcer: BlobAnnouncer


class NetworkProcess:
    """Serves one service over one link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._link = Link(reader, writer, self._handle, "the service")
        self._parts: _Parts | None = None
        self._ending = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self._known: dict[str, None] = {}
        self._sightings: Sightings | None = None
        """Addresses worth trying again when all peers are gone, in the order in which they were learnt."""

    async def run(self) -> None:
        """Serve until the service is gone, asks for the end, or p2pd dies."""
        serving = asyncio.create_task(self._link.serve())
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
            ending.cancel()
            for task in self._background:
                task.cancel()
            if self._parts is not None:
                self._parts.caps.month.write_last()
                await self._parts.host.stop()
                self._parts.home.close()

    async def _handle(self, body: ipc.Body, on_progress: OnProgress) -> ipc.Body:
        if isinstance(body, ipc.Start):
            return await self._start(body.config)
        if isinstance(body, ipc.Stop):
            asyncio.get_running_loop().call_soon(self._ending.set)
            return ipc.Done()
        if self._parts is None:
            raise LocalError("the network process was not started yet")
        if isinstance(body, _BLOB_BODIES):
            return await _handle_blob(self._parts, body, on_progress)
        return await self._handle_peer(self._parts, body)

    async def _handle_peer(self, parts: _Parts, body: ipc.Body) -> ipc.Body:
        match body:
            case ipc.Connect():
                return await self._connect(parts, body.addresses)
            case ipc.Control():
                answer = await parts.control.ask(
                    body.peer, body.addresses, body.request, body.timeout_s
                )
                return ipc.Reply(data=answer)
            case ipc.Announce():
                return ipc.Stored(ok=await parts.directory.announce(body.record))
            case ipc.LookUp():
                return ipc.Found(values=await parts.directory.look_up(body.key))
            case ipc.SetAuthority():
                parts.directory.set_authority(
                    Authority(parts.config.swarm, body.founder, frozenset(body.coordinators))
                )
                return ipc.Done()
            case ipc.AskAddresses():
                return ipc.Ready(peer=parts.host.peer, addresses=await parts.host.addresses())
            case ipc.AskReach():
                return await _reach(parts)
            case ipc.AskTraffic():
                return await _traffic(parts)
            case _:
                raise MalformedBytes(f"{type(body).__name__} is not a call to the network process")

    async def _start(self, config: ipc.NetworkConfig) -> ipc.Ready:
        if self._parts is not None:
            raise LocalError("the network process has started already")
        home = HomeFolder(Path(config.home))
        counters = Counters()
        folder = Path(config.store) if config.store else home.path / "blobs"
        store = await asyncio.to_thread(open_store, folder, config.quota_bytes, config.shelf)
        caps = _caps(home, config)
        host = await _start_host(home, config)
        authority = Authority(config.swarm, config.founder, frozenset(config.coordinators))
        directory = await Directory.start(host, authority, config.client_mode)
        announcer = BlobAnnouncer(
            lambda: _served(self._parts), _teller(config, host, directory), _now_ms
        )
        means = Means(
            host=host,
            store=store,
            counters=counters,
            protocol=blob_protocol(config.swarm),
            chunk_timeout_s=config.chunk_timeout_s,
            caps=caps,
            find=lambda blob: directory.providers_of(blob, PROVIDERS_LOOKED_FOR),
            held=announcer.note,
        )
        exchange = Exchange(means)
        self._parts = _Parts(
            config=config,
            home=home,
            host=host,
            directory=directory,
            store=store,
            exchange=exchange,
            caps=caps,
            announcer=announcer,
            control=ControlChannel(
                host,
                counters,
                config.swarm,
                self._ask_service,
                limit_or_none(config.control_per_s, config.control_burst),
            ),
            counters=counters,
        )
        server = BlobServer(store, counters, caps, exchange.partial_of)
        await host.serve(blob_protocol(config.swarm), server.serve)
        await self._parts.control.listen()
        self._sightings = Sightings(host.seen_at)
        await host.serve(reach_protocol(config.swarm), DialBackDesk(host).serve)
        works = [self._watch_daemon(host), self._stay_joined(self._parts)]
        if config.announce_blobs and not config.client_mode:
            works.append(announcer.run())
        if config.find_at_home:
            works.append(self._at_home(self._parts).run())
        if config.scrub_bytes_per_s:
            works.append(_scrub(self._parts).run())
        for work in works:
            task = asyncio.create_task(work)
            task.add_done_callback(self._end_with)
            self._background.append(task)
        return ipc.Ready(peer=host.peer, addresses=await host.addresses())

    def _at_home(self, parts: _Parts) -> HomeDiscovery:
        async def meet(addresses: list[str]) -> None:
            report = await self._connect(parts, addresses)
            _log.info("a peer in the home network: %s", report.in_words() or "met")

        host, config = parts.host, parts.config
        return HomeDiscovery(config.swarm, host.peer, host.addresses, meet, config.listen)

    async def _watch_daemon(self, host: Host) -> None:
        status = await host.daemon.wait()
        _log.error("p2pd ended with status %s; the network process ends too", status)

    def _end_with(self, task: asyncio.Task[None]) -> None:
        """A process whose background work broke must not look alive; the service may start a new one."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background work broke; the network process ends", exc_info=error)
        self._ending.set()

    async def _stay_joined(self, parts: _Parts) -> None:
        while True:
            await asyncio.sleep(parts.config.rejoin_every_s)
            if self._known and parts.directory.is_alone:
                report = await self._connect(parts, list(self._known))
                _log.info("all DHT peers were gone; tried again: %s", report.in_words() or "joined")

    async def _ask_service(self, peer: PeerId, request: bytes) -> bytes:
        seen_at = await self._sightings.of(peer) if self._sightings is not None else ""
        inbound = ipc.InboundControl(peer=peer, request=request, seen_at=seen_at[:64])
        return (await self._link.call(inbound, ipc.Reply, CONTROL_TIMEOUT_S)).data

    async def _connect(self, parts: _Parts, addresses: list[str]) -> ipc.ConnectReport:
        reports = await asyncio.gather(*(_try_address(parts, address) for address in addresses))
        for report in reports:
            if report.peer and len(self._known) < _ADDRESSES_KEPT:
                self._known[report.address] = None
        if any(not report.problem for report in reports):
            await parts.directory.meet_neighbours()
        return ipc.ConnectReport(reports=list(reports))


def _scrub(parts: _Parts) -> Scrub:
    async def repair(blob: BlobId) -> object:
        return await parts.exchange.fetch(blob, (), lambda done, total: None)

    return Scrub(parts.store, parts.counters, parts.config.scrub_bytes_per_s, repair)


def _served(parts: _Parts | None) -> list[BlobId]:
    """What others can have from here: the blobs used last, and those that are just coming."""
    if parts is None:
        return []
    kept = sorted(parts.store.blobs(), key=lambda blob: blob.used_at_s)
    return [*(blob.blob for blob in kept[-MAX_ANNOUNCED:]), *parts.exchange.running]


def _teller(
    config: ipc.NetworkConfig, host: Host, directory: Directory
) -> Callable[[BlobId], Awaitable[object]]:
    """Puts the record of one blob into the DHT."""
    key = load_or_create_key(Path(config.key_file))

    async def tell(blob: BlobId) -> None:
        addresses = (await host.addresses())[:MAX_PROVIDER_ADDRESSES]
        body = ProviderRecord(blob=blob, addresses=addresses)
        await directory.announce(seal_record(key, config.swarm, body, _now_ms()))

    return tell


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _caps(home: HomeFolder, config: ipc.NetworkConfig) -> Caps:
    month = month_of_process(home.path, config.month_bytes)
    return Caps(config.up_bytes_per_s, config.down_bytes_per_s, month)


async def _start_host(home: HomeFolder, config: ipc.NetworkConfig) -> Host:
    key_file = Path(config.key_file)
    identity = key_file.with_name(key_file.name + ".libp2p")
    write_libp2p_identity(load_or_create_key(key_file), identity)
    home.end_stale_daemon(identity)
    parts = load_hivemind()
    files = DaemonFiles(parts.p2pd, identity, home.sockets() / "p2pd.sock")
    host = await Host.start(parts, files, config)
    home.remember_daemon(host.daemon.pid)
    return host


async def _try_address(parts: _Parts, address: str) -> ipc.AddressReport:
    """Connect and join the DHT there; never raises for what is wrong with the address or the peer."""
    peer = PeerId("")
    ahead_ms = None
    try:
        peer = parse_address(address)
        await parts.host.connect(peer, [address])
        ahead_ms = await parts.directory.join(peer)
        problem = ""
    except ClockOff as error:
        ahead_ms, problem = error.ahead_ms, str(error)
    except RemoteError as error:
        problem = str(error)
    return ipc.AddressReport(address=address, peer=peer, problem=problem, clock_ahead_ms=ahead_ms)


_BLOB_BODIES = (ipc.AddBlob, ipc.FindBlob, ipc.DropBlob, ipc.PinBlob, ipc.FetchBlob)


async def _handle_blob(
    parts: _Parts,
    body: ipc.AddBlob | ipc.FindBlob | ipc.DropBlob | ipc.PinBlob | ipc.FetchBlob,
    on_progress: OnProgress,
) -> ipc.Body:
    store = parts.store
    match body:
        case ipc.AddBlob():
            blob = await asyncio.to_thread(store.add_file, Path(body.path))
            parts.announcer.note(blob)
            return ipc.Blob(blob=blob, path=str(store.local_path_of(blob) or ""))
        case ipc.FindBlob():
            path = await asyncio.to_thread(store.path_of, body.blob)
            return ipc.Blob(blob=body.blob, path=str(path or ""))
        case ipc.DropBlob():
            await asyncio.to_thread(store.drop, body.blob)
            return ipc.Done()
        case ipc.PinBlob():
            await asyncio.to_thread(store.pin, body.blob, body.pinned)
            return ipc.Done()
        case ipc.FetchBlob():
            tell = _Seldom(on_progress)
            try:
                path = await parts.exchange.fetch(body.blob, body.providers, tell, body.max_bytes)
            finally:
                tell.flush()
            return ipc.Blob(blob=body.blob, path=str(path))


class _Seldom:
    """Passes progress on ten times a second at most; what came in between is told a little later, never lost."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._loop = asyncio.get_running_loop()
        self._next_s = 0.0
        self._latest = (0, 0)
        self._later: asyncio.TimerHandle | None = None

    def __call__(self, done: int, total: int) -> None:
        self._latest = (done, total)
        if self._later is None:
            wait_s = max(0.0, self._next_s - self._loop.time())
            self._later = self._loop.call_later(wait_s, self.flush)

    def flush(self) -> None:
        """Tell what was not told yet."""
        if self._later is None:
            return
        self._later.cancel()
        self._later = None
        self._next_s = self._loop.time() + _PROGRESS_EVERY_S
        self._on_progress(*self._latest)


async def _reach(parts: _Parts) -> ipc.ReachReport:
    """Ask a few connected peers at once; those that refuse or do not know the question count for nothing.

    A peer that is met over IPv6 dials back over IPv6, so it is told the port that listens there.
    """
    own = await parts.host.addresses()
    seen = (await parts.host.seen_at()).items()
    ports = {peer: port for peer, host in seen if (port := port_for(host, own))}
    peers = list(ports)[:PEERS_THAT_DIAL_BACK]
    asked = (ask_to_dial_back(parts.host, parts.config.swarm, peer, ports[peer]) for peer in peers)
    found = []
    for peer, answer in zip(
        peers, await asyncio.gather(*asked, return_exceptions=True), strict=True
    ):
        if isinstance(answer, Reached):
            found.append((answer, ports[peer]))
        elif not isinstance(answer, RemoteError):
            raise answer
    if not found:
        return ipc.ReachReport(asked=0, reached=False)
    answer, port = next((one for one in found if one[0].open), found[0])
    return ipc.ReachReport(asked=len(found), reached=answer.open, host=answer.host, port=port)


async def _traffic(parts: _Parts) -> ipc.Traffic:
    counters = parts.counters
    return ipc.Traffic(
        bytes_up=counters.bytes_up,
        bytes_down=counters.bytes_down,
        blobs_served=counters.blobs_served,
        blobs_damaged=counters.blobs_damaged,
        chunks_refused=counters.chunks_refused,
        peers=await parts.host.num_peers(),
    )
