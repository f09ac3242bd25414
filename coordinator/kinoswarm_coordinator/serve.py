"""Runs a coordinator: log, service, network process, operator's worker, page. Owns how they start and end."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvicorn

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.accounts import expired_delegations
from kinoswarm_coordinator.admin_door import AdminDoor
from kinoswarm_coordinator.amending import adopt_next_key
from kinoswarm_coordinator.amendment_watch import AmendmentWatch
from kinoswarm_coordinator.charter_file import read_chain, serve_chain
from kinoswarm_coordinator.credit import Ledger, flops_per_step
from kinoswarm_coordinator.data_frames import write_frames
from kinoswarm_coordinator.database import sqlite_url
from kinoswarm_coordinator.front_door import door_for
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.intake import Intake
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.leading import holder_name, keep_leading, wait_to_lead
from kinoswarm_coordinator.log_heads import HeadSigner
from kinoswarm_coordinator.online_history import EVERY_MS
from kinoswarm_coordinator.operator_jobs import Workbench
from kinoswarm_coordinator.operator_worker import OperatorWorker
from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.publisher import Publisher
from kinoswarm_coordinator.records_book import RecordsBook
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.settings import CoordinatorSettings
from kinoswarm_coordinator.site_writer import site_facts, write_site
from kinoswarm_coordinator.sql_log import SqlLog
from kinoswarm_coordinator.state import Rules
from kinoswarm_coordinator.submissions import expired
from kinoswarm_coordinator.tidying import Tidier
from kinoswarm_coordinator.try_desk import TryDesk
from kinoswarm_coordinator.try_queue import TryRules
from kinoswarm_coordinator.uploads import Uploads
from kinoswarm_coordinator.web.app import create_app
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_model.supervisor import WorkerSupervisor
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.certificate import certificate_at
from kinoswarm_network.client import NetworkClient, NetworkConfig
from kinoswarm_network.listening import bound_socket, server_of
from kinoswarm_network.rate_limit import limit_or_none
from kinoswarm_network.shelved_store import ShelvedBlobStore, open_store
from kinoswarm_protocol.charter import Charter
from kinoswarm_protocol.charter_chain import OpenedChain, coordinators_ever
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.ids import PeerId, SwarmId
from kinoswarm_protocol.invite import Invite, read_invite
from kinoswarm_protocol.keys import KeyPair

_log = structlog.get_logger("serve")
_TRAFFIC_EVERY_S = 5.0
_SWEEP_EVERY_S = 3_600.0
_CATCH_UP_EVERY_S = 600.0
_KEPT_CLIPS = 100
"""Of visitors, newest."""


@dataclass(frozen=True)
class Serving:
    """What is up: for the terminal."""

    page: str
    addresses: list[str]
    invite: str
    swarm: SwarmId
    swarm_name: str
    peer: PeerId


@dataclass(frozen=True)
class Founding:
    """What the founder left in the folder, checked."""

    swarm: SwarmId
    chain: OpenedChain
    record: bytes
    """The founder's DHT record of the chain."""
    key: KeyPair
    invite: str

    @property
    def charter(self) -> Charter:
        """As amended."""
        return self.chain.charter

    @property
    def coordinators_ever(self) -> frozenset[PeerId]:
        """Whose signatures on the log's heads count."""
        return coordinators_ever(self.chain)


async def run_coordinator(
    root: Path,
    settings: CoordinatorSettings,
    on_ready: Callable[[Serving], None],
    on_standby: Callable[[str], None] = lambda reason: None,
) -> None:
    """Serve the swarm founded in `root` until cancelled; while another coordinator leads it, stand by.

    `on_standby` hears why. Raises LocalError when it can't start, NotLeader when another coordinator took over.
    """
    folder = SwarmFolder(root.resolve())
    founding = read_founding(folder)
    log = open_log(folder, settings)
    try:
        await wait_to_lead(log, holder_name(founding.key.peer_id), on_standby)
        with _http_socket(settings) as bound:
            async with asyncio.TaskGroup() as tasks:
                renewing = tasks.create_task(keep_leading(log))
                await _lead(folder, founding, log, settings, _Up(bound, on_ready))
                renewing.cancel()
    finally:
        log.close()


@dataclass(frozen=True)
class _Up:
    """Where the page listens, and who hears that all is up."""

    bound: socket.socket
    on_ready: Callable[[Serving], None]


def _http_socket(settings: CoordinatorSettings) -> socket.socket:
    return bound_socket(
        settings.http_host,
        settings.http_port,
        "end the program that uses the port, or set http_port in settings.toml",
    )


def open_log(folder: SwarmFolder, settings: CoordinatorSettings) -> SqlLog:
    """The event log that the settings name. Raises LocalError or CorruptLog."""
    return SqlLog(settings.database_url or sqlite_url(folder.log))


async def _lead(
    folder: SwarmFolder, founding: Founding, log: SqlLog, settings: CoordinatorSettings, up: _Up
) -> None:
    store = await asyncio.to_thread(_open_store, folder, settings)
    ledger = Ledger(flops_per_step(founding.charter))
    journal = await asyncio.to_thread(Journal, log, ledger.apply)
    service = founded_service(folder, founding, journal, settings, log.epoch)
    await _found(service)
    network = await NetworkClient.start(
        _network_config(folder, founding, settings),
        lambda peer, request: service.answer(request, network.host_of(peer)),
    )
    try:
        sources = _web_sources(store, folder, service, founding, ledger)
        sources.heads = HeadSigner(
            log=log, key=founding.key, swarm=founding.swarm, now_ms=service.now_ms
        )
        service.newest_head = sources.log_head
        await _run_parts(sources, network, settings, founding, up)
    finally:
        await network.stop()


def _open_store(folder: SwarmFolder, settings: CoordinatorSettings) -> BlobStore:
    """The folder, and the storage behind it once it has answered. Raises LocalError that says what to mend."""
    store = open_store(folder.store, settings.cache_bytes, settings.blobs)
    if isinstance(store, ShelvedBlobStore):
        store.shelf.check()
    return store


def read_founding(folder: SwarmFolder) -> Founding:
    """What lies in a swarm's folder, checked; a key that an amendment brought comes into force here."""
    folder.require_founded()
    text = folder.invite.read_text()
    invite: Invite = read_invite(text).body
    chain, record = read_chain(folder, invite.swarm)
    return Founding(
        invite.swarm, chain, record, adopt_next_key(folder, chain.charter), text.strip()
    )


def founded_service(
    folder: SwarmFolder,
    founding: Founding,
    journal: Journal,
    settings: CoordinatorSettings,
    epoch: int = 1,
) -> Service:
    in_force = serve_chain(folder, founding.chain, founding.record)
    rules = Rules(
        charter=founding.charter,
        charter_blob=in_force.charter_blob,
        operator=founding.key.peer_id,
        prompts=tuple(settings.prompts),
        referee=settings.referee,
    )
    addresses = list(settings.announce or founding.charter.addresses)
    book = RecordsBook(key=founding.key, swarm=founding.swarm, addresses=addresses, epoch=epoch)
    return Service(
        journal=journal,
        rules=rules,
        key=founding.key,
        swarm=founding.swarm,
        presence=Presence(),
        book=book.of_charter(in_force),
        in_force=in_force,
        door=door_for(settings.newcomers_per_hour),
    )


async def _found(service: Service) -> None:
    """The log's first event."""
    if not service.journal.state.versions:
        charter = service.rules.charter
        event = ev.Founded(
            at_ms=service.now_ms(),
            num_clusters=len(charter.clusters),
            seed_checkpoint=charter.seed_checkpoint,
            num_lineages=charter.policy.lineages,
        )
        await service.record([event])
    await service.follow(service.in_force)


def _network_config(
    folder: SwarmFolder, founding: Founding, settings: CoordinatorSettings
) -> NetworkConfig:
    return NetworkConfig(
        home=str(folder.network),
        swarm=founding.swarm,
        key_file=str(folder.key),
        founder=founding.charter.founder,
        coordinators=founding.charter.coordinators,
        store=str(folder.store),
        shelf=settings.blobs,
        relay_for_others=settings.relay_for_others,
        quota_bytes=settings.cache_bytes,
        listen=settings.listen,
        control_per_s=settings.control_per_s,
        control_burst=settings.control_burst,
    )


def _web_sources(
    store: BlobStore, folder: SwarmFolder, service: Service, founding: Founding, ledger: Ledger
) -> WebSources:
    return WebSources(
        service=service,
        store=store,
        folder=folder,
        invite=founding.invite,
        ledger=ledger,
    )


async def _run_parts(
    sources: WebSources,
    network: NetworkClient,
    settings: CoordinatorSettings,
    founding: Founding,
    up: _Up,
) -> None:
    folder, service = sources.folder, sources.service
    intake = Intake(service=service, network=network, is_coming=sources.uploads.is_coming)
    service.on_events = intake.on_events
    sources.uploads.on_complete = intake.look_again
    bench = Workbench(
        folder=folder,
        rules=service.rules,
        network=network,
        threads=settings.threads,
        device=settings.device,
        credited_flops=sources.ledger.total_flops,
    )
    supervisor = WorkerSupervisor(folder.home / "worker.log")
    sources.desk = _try_desk(service, folder, settings)
    sources.tries_per_hour = settings.try_per_hour
    operator = OperatorWorker(service, bench, supervisor, settings.idle_s, sources.desk)
    publisher = Publisher(
        service=service,
        network=network,
        folder=folder,
        announce_every_s=settings.announce_every_s,
    )
    sources.doing = lambda: operator.doing
    server = _server(sources, settings)
    door = AdminDoor(
        service=service,
        admins=frozenset({founding.key.peer_id, *(PeerId(peer) for peer in settings.admins)}),
        path=folder.admin_socket,
        port=settings.admin_port,
    )
    tidier = Tidier(service=service, store=sources.store, folder=folder, keep=settings.keep)
    watch = AmendmentWatch(service=service, folder=folder, network=network)
    secure = certificate_at(folder.certificate) is not None
    up.on_ready(_serving(up.bound, settings, network, founding, secure))
    try:
        async with asyncio.TaskGroup() as tasks:
            intake.resume()
            tasks.create_task(operator.run())
            tasks.create_task(publisher.run())
            tasks.create_task(_tick(service, watch, settings.tick_s))
            tasks.create_task(_watch_traffic(service, network))
            tasks.create_task(_fill_pages(sources))
            tasks.create_task(door.run())
            tasks.create_task(_sweep_uploads(sources.uploads))
            tasks.create_task(tidier.run(settings.tidy_every_s))
            if isinstance(sources.store, ShelvedBlobStore):
                tasks.create_task(_catch_up(sources.store))
            tasks.create_task(_make_copies(sources, settings.copy_every_s))
            tasks.create_task(_end_with(network.wait_ended, "the network process ended"))
            tasks.create_task(service.journal.wait_failed())
            if sources.heads is not None:
                tasks.create_task(sources.heads.run(settings.head_every_s))
            tasks.create_task(_serve_http(server, up.bound))
    finally:
        await intake.stop()
        sources.uploads.close()


def _try_desk(
    service: Service, folder: SwarmFolder, settings: CoordinatorSettings
) -> TryDesk | None:
    if not settings.try_per_hour:
        return None
    return TryDesk(
        service=service,
        folder=folder,
        rules=TryRules(max_waiting=settings.try_waiting, max_per_client=1, kept=_KEPT_CLIPS),
        max_prompt=settings.try_prompt,
        device=settings.device,
        threads=settings.threads,
    )


async def _tick(service: Service, watch: AmendmentWatch, tick_s: float) -> None:
    while True:
        await asyncio.sleep(tick_s)
        await watch.look()
        state, now_ms = service.journal.state, service.now_ms()
        await service.record(
            expired(state, service.rules, now_ms) + expired_delegations(state, now_ms)
        )


async def _sweep_uploads(uploads: Uploads) -> None:
    while True:
        await uploads.sweep(time.time())
        await asyncio.sleep(_SWEEP_EVERY_S)


async def _catch_up(store: ShelvedBlobStore) -> None:
    """What a storage that was away has not got yet, and what was founded before there was one."""
    while True:
        if num_blobs := await asyncio.to_thread(store.catch_up):
            _log.info("brought blobs to the storage", num_blobs=num_blobs)
        await asyncio.sleep(_CATCH_UP_EVERY_S)


async def _watch_traffic(service: Service, network: NetworkClient) -> None:
    while True:
        traffic = await network.traffic()
        presence = service.presence
        presence.bytes_up = traffic.bytes_up + presence.http_bytes_up
        presence.bytes_down = traffic.bytes_down + presence.http_bytes_down
        await asyncio.sleep(_TRAFFIC_EVERY_S)


async def _end_with(wait: Callable[[], Awaitable[None]], why: str) -> None:
    await wait()
    raise LocalError(f"{why}; start the coordinator again, and look into network.log")


async def _fill_pages(sources: WebSources) -> None:
    """What pages show that nobody asks for: frames of the data once, who is on-line now and then."""
    charter = sources.service.rules.charter
    await asyncio.to_thread(write_frames, charter, sources.folder.frames, sources.store.path_of)
    while True:
        sources.note_online()
        await asyncio.sleep(EVERY_MS / 1000)


async def _make_copies(sources: WebSources, every_s: float) -> None:
    """A signed copy now, after every release, and now and again: mirrors fetch it from /snapshot/."""
    generation = 0
    while every_s:
        shown = _num_published(sources.service)
        folder = sources.folder.copy(generation)
        facts = site_facts(sources)
        try:
            await asyncio.to_thread(write_site, sources, facts, folder, with_model=True)
        except (OSError, LocalError) as error:
            _log.warning("no copy for mirrors", why=str(error))
        else:
            sources.copy_folder = folder
            generation += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                while _num_published(sources.service) == shown:
                    await sources.service.journal.wait_for_change()


def _num_published(service: Service) -> int:
    return sum(release.manifest is not None for release in service.journal.state.releases)


def _server(sources: WebSources, settings: CoordinatorSettings) -> uvicorn.Server:
    app = create_app(
        sources,
        limit=limit_or_none(settings.requests_per_s, settings.request_burst),
        control_limit=limit_or_none(settings.control_per_s, settings.control_burst),
    )
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    if own := certificate_at(sources.folder.certificate):
        config.ssl_certfile, config.ssl_keyfile = str(own.path), str(own.key_path)
    return server_of(config)


async def _serve_http(server: uvicorn.Server, bound: socket.socket) -> None:
    try:
        await server.serve(sockets=[bound])
    except asyncio.CancelledError:
        server.should_exit = True
        raise


def _serving(
    bound: socket.socket,
    settings: CoordinatorSettings,
    network: NetworkClient,
    founding: Founding,
    secure: bool,
) -> Serving:
    host = "127.0.0.1" if settings.http_host in ("0.0.0.0", "::") else settings.http_host  # noqa: S104
    return Serving(
        page=f"{'https' if secure else 'http'}://{host}:{bound.getsockname()[1]}/",
        addresses=network.addresses,
        invite=founding.invite,
        swarm=founding.swarm,
        swarm_name=founding.charter.name,
        peer=network.peer_id,
    )
