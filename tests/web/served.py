"""A coordinator's HTTP side over a made-up swarm that has come a long way: real service, real blobs, no network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from coordinator.small_service import service_over
from coordinator.small_swarm import SmallSwarm, rules
from msgspec import structs
from protocol.samples import ACCOUNT, COORDINATOR, FOUNDER, NODE, SWARM, invite

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.credit import Ledger
from kinoswarm_coordinator.event_log import MemoryLog
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.records_book import RecordsBook
from kinoswarm_coordinator.try_desk import TryDesk
from kinoswarm_coordinator.try_queue import TryRules
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_model.video_io import write_mp4
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_protocol.accounts import delegate
from kinoswarm_protocol.invite import write_invite
from kinoswarm_protocol.messages import Hello, Machine, Progress, ReleaseFile

HOSTILE = "<script>alert(1)</script>"


def lived_swarm() -> SmallSwarm:
    """Two versions of every expert, a release, a rejection, a hostile name."""
    swarm = SmallSwarm(rules(2, target_version=3))
    machine = Machine(device="CPU (x86_64)", memory_gib=8.0, seconds_per_step=0.5)
    swarm.ask(
        NODE,
        Hello(
            pseudonym=HOSTILE,
            program_version="0.1.0",
            machine=machine,
            addresses=["/ip4/203.0.113.7/tcp/4001"],
            delegation=delegate(ACCOUNT, NODE.peer_id, HOSTILE, swarm.now_ms, 86_400_000),
        ),
    )
    for _ in range(4):
        swarm.train(NODE)
        swarm.operate()
    swarm.train(NODE)
    swarm.operate(worse=True)
    swarm.leased(NODE)
    return swarm


def made_up_clip(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    grain = rng.integers(0, 255, (1, 8, 8, 3), dtype=np.uint8)
    still = grain.repeat(4, axis=1).repeat(4, axis=2)
    return np.concatenate([np.roll(still, shift, axis=2) for shift in range(8)])


def sources(folder: Path) -> WebSources:
    """The HTTP side of the lived swarm, with a release on disk."""
    swarm = lived_swarm()
    home = SwarmFolder(folder)
    store = BlobStore(home.store)
    files = [_sample(home, store, clip) for clip in range(2)]
    history: list[ev.Event] = []
    for event in swarm.history:
        if isinstance(event, ev.ReleaseBuilt):
            published = ev.ReleasePublished(
                at_ms=event.at_ms, version=event.version, manifest=files[0].blob
            )
            history += [structs.replace(event, files=files), published]
        else:
            history.append(event)
    log = MemoryLog()
    log.append(history)
    ledger = Ledger(1e9)
    journal = Journal(log, ledger.apply)
    presence = Presence()
    presence.seen(NODE.peer_id, swarm.now_ms)
    (open_lease,) = journal.state.open_leases
    presence.progressed(NODE.peer_id, Progress(lease_id=open_lease, step=17, loss=0.4))
    service = service_over(
        journal,
        replace(swarm.rules, prompts=("a hall of grey stone", "a garden of tall green hedges")),
        presence=presence,
        book=RecordsBook(key=COORDINATOR, swarm=SWARM, addresses=["/ip4/203.0.113.9/tcp/1"]),
        now_ms=lambda: swarm.now_ms + 30_000,
    )
    return WebSources(
        service=service,
        store=store,
        folder=home,
        invite=write_invite(FOUNDER, invite()),
        ledger=ledger,
    )


def _sample(home: SwarmFolder, store: BlobStore, clip: int) -> ReleaseFile:
    """One sample clip, laid out for both releases."""
    name = f"samples/sample-{clip:02d}.mp4"
    for version in ("1", "2"):
        path = home.releases / version / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, made_up_clip(clip), 8, scale=4)
    return ReleaseFile(path=name, blob=store.add_file(path), size_bytes=path.stat().st_size)


DESK_RULES = TryRules(max_waiting=2, max_per_client=1, kept=2)


def with_desk(
    folder: Path, per_hour: int = 100, rules: TryRules = DESK_RULES, max_prompt: int = 40
) -> WebSources:
    """The same with the "try it" box switched on."""
    served = sources(folder)
    served.desk = TryDesk(
        service=served.service, folder=served.folder, rules=rules, max_prompt=max_prompt
    )
    served.tries_per_hour = per_hour
    return served
