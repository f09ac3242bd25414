"""What the HTTP side reads and calls. Owns the seam to the service; everything it gives out is public."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from re import fullmatch

from kinoswarm_coordinator import queries
from kinoswarm_coordinator.credit import Ledger
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.leaders import AccountStory, Leader, account_story, leaders
from kinoswarm_coordinator.log_heads import HeadSigner
from kinoswarm_coordinator.online_history import OnlineAt, OnlineHistory
from kinoswarm_coordinator.queries import (
    ActionView,
    History,
    LedgerPiece,
    NodesPiece,
    NodeStory,
    VerdictsPiece,
)
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.status import training_by_cluster
from kinoswarm_coordinator.try_desk import TryDesk
from kinoswarm_coordinator.uploads import Uploads
from kinoswarm_coordinator.views import SwarmView, num_online, view_of
from kinoswarm_coordinator.web.health import Facts, Health, health_of
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.messages import ReleaseFile

_CARD = "README.md"
_COPY_PATH = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*"
_MOST_CARD_BYTES = 256 * 1024


@dataclass(kw_only=True)
class WebSources:
    """One coordinator as HTTP sees it."""

    service: Service
    store: BlobStore
    folder: SwarmFolder
    invite: str
    doing: Callable[[], str] = field(default=lambda: "")
    ledger: Ledger = field(default_factory=lambda: Ledger(1.0))
    online: OnlineHistory = field(default_factory=OnlineHistory)
    desk: TryDesk | None = None
    """Makes clips of visitors' prompts; None where the operator did not switch that on."""
    tries_per_hour: int = 0
    copy_folder: Path | None = None
    """The newest signed copy of all this, for mirrors."""
    heads: HeadSigner | None = None
    """Signs where the event log ends; None where no log in a database is served."""
    network_up: Callable[[], bool] = field(default=lambda: True)
    uploads: Uploads = field(init=False)
    """What nodes bring over HTTP(S)."""

    def __post_init__(self) -> None:
        self.uploads = Uploads(store=self.store, state=lambda: self.service.journal.state)

    def copy_file(self, path: str) -> Path | None:
        """A file of the newest signed copy; None for anything that the copy does not name."""
        if self.copy_folder is None or not fullmatch(_COPY_PATH, path):
            return None
        found = self.copy_folder / path
        return found if found.is_file() else None

    def note_online(self) -> None:
        """Look at who is there, for the charts."""
        service = self.service
        now_ms = service.now_ms()
        self.online.note(
            OnlineAt(
                at_ms=now_ms,
                online=num_online(service.rules, service.presence, now_ms),
                training=sum(training_by_cluster(service.journal.state).values()),
            )
        )

    def frames(self, cluster: int) -> Path | None:
        """Frames of a cluster's data."""
        path = self.folder.frames / f"{cluster}.png"
        return path if path.is_file() else None

    def view(self) -> SwarmView:
        """The public view of this moment."""
        service = self.service
        return view_of(
            service.journal.state,
            service.rules,
            service.presence,
            service.now_ms(),
            self.doing(),
            service.swarm,
        )

    def nodes(self, after: str, limit: int) -> NodesPiece:
        """Volunteers after a peer id."""
        service = self.service
        return queries.nodes_piece(
            service.journal.state,
            service.rules,
            service.presence,
            after=after,
            limit=limit,
            now_ms=service.now_ms(),
        )

    def verdicts(self, before: int | None, limit: int) -> VerdictsPiece:
        """The verification log before an entry."""
        return queries.verdicts_piece(self.service.journal.state, before, limit)

    def node(self, peer: str) -> NodeStory | None:
        """One volunteer."""
        service = self.service
        return queries.node_story(
            service.journal.state, service.presence, self.ledger, peer, service.now_ms()
        )

    def leaders(self) -> list[Leader]:
        """Who contributed most."""
        return leaders(self.service.journal.state, self.service.rules, self.ledger)

    def account(self, account: str) -> AccountStory | None:
        """One account and its machines."""
        return account_story(self.service.journal.state, self.ledger, account)

    def ledger_piece(self, before: int | None, limit: int) -> LedgerPiece:
        """Lines of the ledger before one."""
        return queries.ledger_piece(self.service.journal.state, self.ledger, before, limit)

    def actions(self) -> list[ActionView]:
        """What operators did."""
        return queries.actions(self.service.journal.state)

    def history(self) -> History:
        """Decided work over time."""
        return queries.history(
            self.service.journal.state,
            self.service.rules,
            self.online.points(),
            self.service.now_ms(),
        )

    def health(self) -> Health:
        """Checks of what keeps the swarm going."""
        service = self.service
        now_ms = service.now_ms()
        facts = Facts(
            now_ms=now_ms,
            online=num_online(service.rules, service.presence, now_ms),
            free_disk_bytes=shutil.disk_usage(self.folder.root).free,
            network_up=self.network_up(),
        )
        return health_of(service.journal.state, facts)

    def release_manifest(self, version: int) -> bytes | None:
        """The signed table of contents of a release."""
        for release in self.service.journal.state.releases:
            if release.version == version and release.manifest is not None:
                path = self.store.path_of(release.manifest)
                return path.read_bytes() if path is not None else None
        return None

    def charter_chain(self) -> bytes:
        """The charter with its amendments: the founder's signatures alone vouch for it."""
        return self.service.in_force.chain.raw

    def log_head(self) -> bytes:
        """The newest signed head of the event log; nothing before the first."""
        return self.heads.newest if self.heads is not None else b""

    async def control(self, raw: bytes, host: str) -> bytes:
        """The reply to a request's bytes, which came from this IP address."""
        return await self.service.answer(raw, host)

    async def next_change(self, timeout_s: float) -> None:
        """Return after a change, or when `timeout_s` has passed: presence changes without one."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.service.journal.wait_for_change()
        except TimeoutError:
            return

    def blob_path(self, blob: BlobId) -> Path | None:
        """The data file of a public blob in this machine's folder."""
        return self.store.local_path_of(blob)

    def manifest_bytes(self, blob: BlobId) -> bytes | None:
        """The encoded manifest of a public blob, from here or the shelf. Blocks."""
        return self.store.manifest_bytes(blob)

    def is_kept(self, version: int) -> bool:
        """Whether a release's files are still laid out here."""
        return (self.folder.releases / str(version)).is_dir()

    def release_files(self, version: int) -> list[ReleaseFile]:
        """What a release consists of."""
        found = [r for r in self.service.journal.state.releases if r.version == version]
        return found[0].files if found else []

    def release_card(self, version: int) -> str:
        """The model card, or nothing when it is not kept here."""
        path = self.release_file(version, _CARD)
        if path is None or path.stat().st_size > _MOST_CARD_BYTES:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")

    def release_file(self, version: int, name: str) -> Path | None:
        """A file of a laid-out release, if the release names it."""
        for release in self.service.journal.state.releases:
            if release.version == version and any(file.path == name for file in release.files):
                path = self.folder.releases / str(version) / name
                return path if path.is_file() else None
        return None
