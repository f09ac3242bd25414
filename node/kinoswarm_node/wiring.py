"""Puts a node's real parts together. Owns which class stands behind which port; starts nothing."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from kinoswarm_model.confinement import WorkerLimits
from kinoswarm_model.supervisor import WorkerSupervisor
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.client import NetworkConfig
from kinoswarm_network.coordinator_client import CoordinatorClient
from kinoswarm_network.rate_caps import Caps, month_of_service
from kinoswarm_node.context import NodeContext
from kinoswarm_node.governor.sensors import MachineSensors
from kinoswarm_node.governor.watch import Governor
from kinoswarm_node.home import Home
from kinoswarm_node.live_settings import LiveSettings
from kinoswarm_node.lookup_desk import LookupDesk
from kinoswarm_node.node_status import NodeStatus
from kinoswarm_node.peer_network import PEERS_FILE, PeerNetwork, PeerNetworkPlan, web_addresses
from kinoswarm_node.ports import Network
from kinoswarm_node.settings import NodeSettings
from kinoswarm_node.status_board import Listener, StatusBoard
from kinoswarm_node.swarm_folder import SwarmFolder
from kinoswarm_node.web_network import WebNetwork, WebNetworkPlan
from kinoswarm_node.wishes import WishFiles
from kinoswarm_protocol.invite import Invite
from kinoswarm_protocol.keys import KeyPair


@dataclass(frozen=True)
class NodePlan:
    """What `kinoswarm join` found out before anything starts."""

    home: Home
    settings: NodeSettings
    key: KeyPair
    invite: Invite
    folder: SwarmFolder


def build_node(plan: NodePlan, listener: Listener, now_ms: Callable[[], int]) -> NodeContext:
    """A node with its real network and worker; both start when they are needed."""
    live = LiveSettings(plan.settings)
    trainer = WorkerSupervisor(
        plan.home.root / "worker.log",
        env=_own_folders(plan.folder),
        limits=_worker_limits(plan),
    )
    return NodeContext(
        settings=plan.settings,
        key=plan.key,
        invite=plan.invite,
        folder=plan.folder,
        network=_network(plan, now_ms),
        trainer=trainer,
        client=CoordinatorClient(plan.key, plan.invite.swarm, plan.invite.coordinators, (), now_ms),
        now_ms=now_ms,
        wishes=WishFiles(plan.home.root),
        governor=_governor(plan.home, live, lambda: trainer.devices),
        live=live,
        board=StatusBoard(plan.home.status_path, first_status(plan, now_ms()), listener, now_ms),
    )


def first_status(plan: NodePlan, now_ms: int) -> NodeStatus:
    """The status before anything happened, with the counts of earlier runs."""
    history = list(plan.folder.history())
    verdicts = [line for line in history if line.state in ("accepted", "rejected", "quarantined")]
    accepted = sum(line.state == "accepted" for line in verdicts)
    return NodeStatus(
        pid=os.getpid(),
        peer_id=plan.key.peer_id,
        pseudonym=plan.settings.pseudonym,
        swarm=plan.invite.swarm,
        swarm_name=plan.invite.name,
        state="starting",
        since_ms=now_ms,
        updated_at_ms=now_ms,
        reason="",
        accepted=accepted,
        rejected=len(verdicts) - accepted,
        last_verdict=verdicts[-1].sentence if verdicts else "",
    )


def _own_folders(folder: SwarmFolder) -> dict[str, str]:
    """Where libraries of the worker keep what they else keep in the user's folder, or in one of everybody's."""
    temporary = folder.worker_dir / "tmp"
    temporary.mkdir(exist_ok=True)
    cache = str(folder.worker_dir / "cache")
    caches = ("XDG_CACHE_HOME", "CUDA_CACHE_PATH", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
    return {"TMPDIR": str(temporary), **dict.fromkeys(caches, cache)}


def _worker_limits(plan: NodePlan) -> WorkerLimits:
    """It sees blobs and writes results; the node's keys, and all else that its user has, it can't open."""
    settings = plan.settings
    return WorkerLimits(
        readable=[str(plan.home.blobs_path)],
        writable=[str(plan.folder.root / "work"), str(plan.folder.worker_dir)],
        offline=True,
        ram_bytes=int(settings.max_ram_gib * 1024**3),
        vram_bytes=int(settings.max_vram_gib * 1024**3),
        nice=settings.nice,
    )


def _governor(home: Home, live: LiveSettings, found: Callable[[], list[str]]) -> Governor:
    sensors = MachineSensors(
        home.root, live.now.device, lambda: bool(live.now.quiet_programs), found
    )
    return Governor(sensors, live.rules, lambda: int(time.monotonic() * 1000))


def _network(plan: NodePlan, now_ms: Callable[[], int]) -> Network:
    return _web_network(plan) if plan.settings.https_only else _peer_network(plan, now_ms)


def _web_network(plan: NodePlan) -> WebNetwork:
    settings = plan.settings
    month = month_of_service(plan.folder.root / "network", int(settings.max_month_gb * 1e9))
    return WebNetwork(
        WebNetworkPlan(
            urls=web_addresses(plan.invite.addresses),
            certificate_sha256=plan.invite.certificate_sha256,
            store=BlobStore(plan.home.blobs_path, settings.max_disk_bytes),
            caps=Caps(settings.upload_mb_s * 1e6, settings.download_mb_s * 1e6, month),
        )
    )


def _peer_network(plan: NodePlan, now_ms: Callable[[], int]) -> PeerNetwork:
    config = NetworkConfig(
        home=str(plan.folder.root / "network"),
        swarm=plan.invite.swarm,
        key_file=str(plan.home.identity_path),
        founder=plan.invite.founder,
        coordinators=list(plan.invite.coordinators),
        store=str(plan.home.blobs_path),
        log_file=str(plan.home.root / "network.log"),
        listen=list(plan.settings.listen),
        client_mode=not plan.settings.listen,
        announce_blobs=True,
        relay_for_others=plan.settings.relay_for_others,
        find_at_home=plan.settings.find_at_home,
        quota_bytes=plan.settings.max_disk_bytes,
        up_bytes_per_s=int(plan.settings.upload_mb_s * 1e6),
        down_bytes_per_s=int(plan.settings.download_mb_s * 1e6),
        month_bytes=int(plan.settings.max_month_gb * 1e9),
    )
    return PeerNetwork(
        PeerNetworkPlan(
            key=plan.key,
            invite=plan.invite,
            config=config,
            store=plan.home.blobs_path,
            peers_file=plan.folder.root / PEERS_FILE,
            on_control=LookupDesk(plan.key, plan.invite.swarm, plan.folder.root, now_ms).answer,
        )
    )
