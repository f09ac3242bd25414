"""A swarm's folder without a running coordinator. Owns what is made from it on disk; changes nothing in it."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from kinoswarm_coordinator.credit import Ledger, flops_per_step
from kinoswarm_coordinator.event_log import event_of
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.log_heads import agreeing_rows, open_head
from kinoswarm_coordinator.serve import founded_service, open_log, read_founding
from kinoswarm_coordinator.settings import load_settings
from kinoswarm_coordinator.site_writer import site_facts, write_site
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_network.shelved_store import open_store
from kinoswarm_protocol.errors import LocalError


@dataclass(frozen=True)
class MadeCopy:
    num_files: int
    size_bytes: int


@dataclass(frozen=True)
class CheckedLedger:
    ledger: Ledger
    num_events: int
    num_heads: int
    """Signed heads that the log agrees with."""


def checked_ledger(root: Path, published: bytes = b"") -> CheckedLedger:
    """The ledger recomputed from the log of the swarm in `root`, whose hash chain is checked on the way.

    Every signed head must agree with it, and the `published` one. Raises LocalError when there is no swarm, CorruptLog
    when an event was changed or is missing, BadSignature for a head that no coordinator signed.
    """
    folder = SwarmFolder(root.resolve())
    founding = read_founding(folder)
    settings = load_settings(folder.home)
    log = open_log(folder, settings)
    try:
        raws = [*log.signed_heads(), *([published] if published else [])]
        heads = [open_head(raw, founding.swarm, founding.coordinators_ever) for raw in raws]
        ledger, num_events = Ledger(flops_per_step(founding.charter)), 0
        with contextlib.closing(log.read_rows()) as rows:
            for row in agreeing_rows(rows, heads, log.where):
                ledger.apply(event_of(row, log.where))
                num_events = row.seq
        return CheckedLedger(ledger, num_events, len(heads))
    finally:
        log.close()


def write_copy(root: Path, out: Path, *, with_model: bool) -> MadeCopy:
    """Write a signed copy of the public state of the swarm in `root`. Raises LocalError."""
    folder = SwarmFolder(root.resolve())
    founding = read_founding(folder)
    settings = load_settings(folder.home)
    log = open_log(folder, settings)
    try:
        ledger = Ledger(flops_per_step(founding.charter))
        journal = Journal(log, ledger.apply)
        epoch = log.leadership().epoch
    finally:
        log.close()
    if not journal.state.versions:
        raise LocalError(f"the swarm in {root} was never served: there is nothing to show yet")
    sources = WebSources(
        service=founded_service(folder, founding, journal, settings, epoch),
        store=open_store(folder.store, 0, settings.blobs),
        folder=folder,
        invite=founding.invite,
        ledger=ledger,
    )
    target = out.expanduser().absolute()
    write_site(sources, site_facts(sources), target, with_model=with_model)
    files = [path for path in target.rglob("*") if path.is_file()]
    return MadeCopy(len(files), sum(path.stat().st_size for path in files))
